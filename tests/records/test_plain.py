"""Records as JSON holds them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from capacity.records.estimate import Estimate, Status
from capacity.records.plain import Plain, plain


@dataclass(frozen=True)
class Inner(Plain):
    best: Estimate | None
    parts: tuple[Estimate, ...] = ()


@dataclass(frozen=True)
class Outer(Plain):
    WRITTEN = ("twice", "inner")

    inner: Inner
    number: int
    hidden: object = None

    @property
    def twice(self):
        return 2 * self.number


def test_every_kind_of_value():
    made = plain(
        OrderedDict(
            status=Status.OK,
            pair=(1, None, True),
            single=np.float64(0.5),
            whole=np.int64(3),
            array=np.eye(2),
            tensor=torch.tensor([1.0, 2.0]),
            point=torch.tensor(2),
        )
    )
    assert made == {
        "status": "ok",
        "pair": [1, None, True],
        "single": 0.5,
        "whole": 3,
        "array": [[1.0, 0.0], [0.0, 1.0]],
        "tensor": [1.0, 2.0],
        "point": 2,
    }
    kinds = {name: type(value) for name, value in made.items()}
    assert kinds["status"] is str
    assert kinds["single"] is float
    assert kinds["whole"] is kinds["point"] is int


def test_records_inside_records():
    assert Inner(best=None).to_dict() == {"best": None, "parts": []}
    one = Estimate(value=np.float64(1.0), interval=(0.5, 1.5))
    made = Outer(inner=Inner(best=one, parts=(one,)), number=2, hidden=object()).to_dict()
    assert list(made) == ["twice", "inner"]
    assert made["twice"] == 4
    assert made["inner"]["parts"] == [made["inner"]["best"]]
    assert made["inner"]["best"]["interval"] == [0.5, 1.5]
    assert type(made["inner"]["best"]["value"]) is float
    assert Estimate.from_dict(made["inner"]["best"]) == one


def test_what_has_no_place_in_a_file_is_refused_by_name():
    with pytest.raises(TypeError, match="a generator has no place in a JSON file; give it to_dict"):
        plain({"a": [1, (x for x in ())]})
