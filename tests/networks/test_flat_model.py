"""Layers whose step is no function of theta alone are refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from capacity.networks.flat_model import FlatModel, flatten


def encoder(dropout):
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=dropout, batch_first=True)


REFUSED = {
    "batch norm": (lambda: nn.BatchNorm1d(4), r"layer '1' \(BatchNorm1d\).*running statistics"),
    "dropout": (lambda: nn.Dropout(0.1), r"layer '1' \(Dropout\).*random mask"),
    "attention": (
        lambda: nn.MultiheadAttention(8, 2, dropout=0.1),
        r"layer '1' \(MultiheadAttention\) has dropout = 0\.1 inside",
    ),
    "lstm": (lambda: nn.LSTM(4, 4, 2, dropout=0.2), r"\(LSTM\) has dropout = 0\.2 inside"),
    "gru": (lambda: nn.GRU(4, 4, 2, dropout=0.2), r"\(GRU\) has dropout = 0\.2 inside"),
    "rnn": (lambda: nn.RNN(4, 4, 2, dropout=0.2), r"\(RNN\) has dropout = 0\.2 inside"),
    "encoder": (lambda: encoder(0.3), r"'1\.self_attn' \(MultiheadAttention\) has dropout = 0\.3"),
    "transformer": (
        lambda: nn.TransformerDecoderLayer(8, 2, 16, dropout=0.3),
        r"'1\.self_attn' \(MultiheadAttention\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_random_and_stateful_layers_are_refused_by_name(case):
    make, said = REFUSED[case]
    layer = make()
    with pytest.raises(ValueError, match=said):
        FlatModel(nn.Sequential(nn.Linear(4, 4), layer)).check_one_mode()
    # With its statistics or mask fixed, the layer is a function like any other.
    FlatModel(nn.Sequential(nn.Linear(4, 4), layer.eval())).check_one_mode()


def test_layers_without_dropout_are_accepted():
    layers = (encoder(0.0), nn.LSTM(4, 4, 2), nn.Dropout(0.0), nn.MultiheadAttention(8, 2))
    for layer in layers:
        flat = FlatModel(nn.Sequential(nn.Linear(4, 4), layer))
        flat.check_one_mode()
        assert flat.size >= 20


def test_fixed_batch_norm_has_a_jacobian():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[1].eval()
    flat, x = FlatModel(model), torch.randn(5, 4)
    v = torch.randn(flat.size)
    _, moved = torch.func.jvp(lambda t: flat.outputs(t, x), (flat.initial(),), (v,))
    assert torch.isfinite(moved).all()
    torch.testing.assert_close(flat.outputs(flatten(model), x), model(x))


def test_many_layers_are_described_by_the_first_and_the_last():
    few = FlatModel(nn.Sequential(*(nn.Linear(3, 3) for _ in range(8)))).describe()
    many = FlatModel(nn.Sequential(nn.Linear(2, 3), *(nn.Linear(3, 3) for _ in range(11))))
    assert few == "Sequential: " + ", ".join(["Linear(3x3)"] * 8)
    ends = ["Linear(3x2)", *["Linear(3x3)"] * 3, "4 more", *["Linear(3x3)"] * 4]
    assert many.describe() == "Sequential: " + ", ".join(ends)
