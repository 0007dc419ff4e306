"""Data that no network can learn from: refused by its place before anything is written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import capacity
from bad_inputs.checkers import check_said

X = torch.arange(48.0).reshape(8, 6) / 48
Y = torch.tensor([0, 1] * 4)


def spoilt(value, row=3):
    """The inputs with one value that is no number."""
    x = X.clone()
    x[row, 0] = value
    return x


def net():
    return nn.Linear(6, 2)


CASES = {
    # what is wrong: (tasks, other arguments of capacity.run, words of the error)
    "NaN": ([(spoilt(torch.nan), Y)], {}, "task 0", "NaN or infinity in 1 of 8 rows", "clean"),
    "infinity": ([(X, Y), (spoilt(torch.inf), Y)], {}, "task 1", "NaN or infinity in 1 of 8"),
    "NaN in what is held out": ([((X, Y), (spoilt(torch.nan), Y))], {}, "test inputs", "NaN"),
    "NaN among the targets": ([(X, spoilt(torch.nan)[:, :2])], {"loss": "mse"}, "targets", "NaN"),
    "fewer targets": ([(X, Y[:5])], {}, "8 inputs but 5 targets", "pair up"),
    "targets as a table": ([(X, Y[:, None])], {}, "shape (8, 1)", "class indices"),
    "labels beyond the head": ([(X, Y + 5)], {"model": net}, "from 5 to 6", "accepted: 0 to 1"),
    "negative labels": ([(X, 2 * Y - 1)], {"model": net}, "from -1 to 1", "accepted: 0 to 1"),
    "float labels": ([(X, Y.float())], {}, "dtype torch.float32", "integer tensor (n,)"),
    "no sample": ([(X[:0], Y[:0])], {}, "empty", "at least one row"),
    "nothing held out": ([((X, Y), (X[:0], Y[:0]))], {}, "test inputs is empty", "one row"),
    "another width in a later task": ([(X, Y), (X[:, :5], Y)], {}, "(5,)", "(6,)", "one shape"),
    "another width held out": ([((X, Y), (X[:, :5], Y))], {}, "train inputs", "test inputs (5,)"),
    "no task": ([], {}, "tasks is empty", "one item per task"),
    "a number": (7, {}, "tasks is a int", "one item per task"),
    "one task without its list": ((X, Y), {}, "bare tensors", "[(x, y)]"),
    "three parts": ([(X, Y, Y)], {}, "task 0", "(Tensor, Tensor, Tensor)", "accepted"),
    "text": ([("x", "y")], {}, "task 0", "str", "accepted"),
    "bytes": ([(torch.zeros(8, 6, dtype=torch.uint8), Y)], {}, "uint8", "x.float() / 255"),
    "objects": ([(np.array([[None]] * 8), Y)], {}, "task 0", "transform them to tensors"),
    "an empty data set": ([TensorDataset(X[:0], Y[:0])], {}, "task 0", "empty"),
    "a data set without targets": ([TensorDataset(X)], {}, "task 0", "(input, target)"),
    "a loader without targets": ([DataLoader(TensorDataset(X), 4)], {}, "task 0", "pair"),
    "an unknown loss": ([(X, Y)], {"loss": "hinge"}, "loss = 'hinge'", "cross_entropy, mse"),
    "a loss that is none": ([(X, Y)], {"loss": 3}, "loss = 3", "function"),
    "a network of another width": ([(X, Y)], {"model": nn.Linear(7, 2)}, "inputs of shape (6,)"),
    "complex inputs": ([(X.to(torch.complex64), Y)], {}, "inputs", "complex64"),
}


@pytest.mark.parametrize("case", CASES)
def test_data_that_cannot_be_learned_is_named(case, tmp_path):
    tasks, options, *said = CASES[case]
    with pytest.raises(ValueError, match=r".") as caught:
        capacity.run(tasks, **options, out=tmp_path / "run", quiet=True)
    check_said(str(caught.value), tuple(said))
    assert list(tmp_path.iterdir()) == []
