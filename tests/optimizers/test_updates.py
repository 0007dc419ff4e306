"""Update maps against torch.optim, step by step on the same gradients."""

from __future__ import annotations

import pytest
import torch

from capacity.optimizers.from_recipe import from_training
from capacity.optimizers.sgld import Langevin
from capacity.optimizers.torch_optimizers import update_of
from capacity.recipe.config import Training

PARITY = {
    "sgd": (torch.optim.SGD, {}, {}),
    "sgd, decay": (torch.optim.SGD, {"weight_decay": 0.1}, {"weight_decay": 0.1}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}, {}),
    "momentum, decay": (
        torch.optim.SGD,
        {"momentum": 0.9, "weight_decay": 0.1},
        {"weight_decay": 0.1},
    ),
    "nesterov": (
        torch.optim.SGD,
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
    ),
    "adam": (torch.optim.Adam, {}, {}),
    "adam, decay": (torch.optim.Adam, {"weight_decay": 0.1}, {"weight_decay": 0.1}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}, {"weight_decay": 0.1}),
    "adamw, betas": (
        torch.optim.AdamW,
        {"betas": (0.8, 0.95), "eps": 1e-5},
        {"betas": (0.8, 0.95), "eps": 1e-5, "weight_decay": 0.01},
    ),
    "rmsprop": (torch.optim.RMSprop, {"alpha": 0.9}, {"alpha": 0.9}),
    "rmsprop, decay": (
        torch.optim.RMSprop,
        {"eps": 1e-6, "weight_decay": 0.1},
        {"eps": 1e-6, "weight_decay": 0.1},
    ),
}


def close(found, expected):
    """Relative 1e-12, as vectors: a component that happens to pass through 0 has no digits."""
    error = float((found - expected).norm() / expected.norm())
    assert error < 1e-12, error


def gradients(count):
    for _ in range(count):
        gradient = torch.randn(7)
        gradient[0] = 0.0  # a parameter that never has a gradient must not make Adam divide by 0
        yield gradient


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("clip", [None, 1.5])
@pytest.mark.parametrize("case", PARITY)
def test_parity_with_torch_optim(case, clip, schedule, float64):
    kind, theirs, ours = PARITY[case]
    name = "momentum" if "momentum" in theirs else case.split(",")[0]
    weight, bias = torch.nn.Parameter(torch.randn(2, 2)), torch.nn.Parameter(torch.randn(3))
    optimiser = kind([weight, bias], lr=0.1, **theirs)
    training = Training(
        optimizer=name, lr=0.1, clip_norm=clip, schedule=schedule, epochs=39, batch_size=8, **ours
    )
    rates = training.learning_rates(8)
    decline = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=39)
    update = from_training(training)

    def theta():
        return torch.cat([weight.detach().flatten(), bias.detach()])

    state = update.init(theta())
    for count, gradient in enumerate(gradients(39), start=1):
        weight.grad, bias.grad = gradient[:4].view(2, 2).clone(), gradient[4:].clone()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_([weight, bias], clip)
        optimiser.step()
        if schedule == "cosine":
            decline.step()
        state = update.step(state, gradient, rates[count - 1], count)
        close(state[0], theta())


@pytest.mark.parametrize(
    "case", ["momentum", "momentum, decay", "nesterov", "adam", "adamw", "adamw, betas"]
)
def test_parity_under_one_cycle(case, float64):
    kind, theirs, _ = PARITY[case]
    parameter = torch.nn.Parameter(torch.randn(7))
    optimiser = kind([parameter], lr=0.1, **theirs)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.1, total_steps=40)
    state = update_of(optimiser).init(parameter.detach().clone())
    seen = set()
    for count, gradient in enumerate(gradients(39), start=1):
        update, lr = update_of(optimiser), optimiser.param_groups[0]["lr"]
        seen.add(update)
        parameter.grad = gradient.clone()
        optimiser.step()
        state = update.step(state, gradient, lr, count)
        close(state[0], parameter.detach())
        cycle.step()
    assert len(seen) > 30, "the cycle moves the momentum as well as the rate"


def test_clipping_is_per_replica(float64):
    update = from_training(Training(clip_norm=1.0, lr=1.0))
    gradient = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    moved = update.step((torch.zeros(2, 2),), gradient, 1.0, 1)[0]
    torch.testing.assert_close(moved.norm(dim=-1), torch.tensor([1.0, 0.5]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_the_jacobian_is_finite_where_a_gradient_is_zero(name, clip, float64):
    update = from_training(Training(optimizer=name, clip_norm=clip))
    state = update.init(torch.randn(5))

    def moved(g):
        return update.step(state, g, 0.1, 1)[0]

    _, tangent = torch.func.jvp(moved, (torch.zeros(5),), (torch.ones(5),))
    assert torch.isfinite(tangent).all()
    (cotangent,) = torch.func.vjp(moved, torch.zeros(5))[1](torch.ones(5))
    assert torch.isfinite(cotangent).all()


def test_only_bare_sgd_is_plain():
    assert from_training(Training()).plain
    for other in (
        {"weight_decay": 0.1},
        {"clip_norm": 1.0},
        {"optimizer": "momentum"},
        {"optimizer": "rmsprop"},
        {"optimizer": "sgld", "temperature": 0.1},
    ):
        assert not from_training(Training(**other)).plain


class TestLangevin:
    """The noise is a pure function of what it is for."""

    def langevin(self, **changes):
        made = {"temperature": 0.3, "weight_decay": 0.2, "seed": 4, "path": ("order", 1)}
        return Langevin(**{**made, **changes})

    def test_the_step_is_the_formula(self, float64):
        update, theta, g = self.langevin(), torch.randn(6), torch.randn(6)
        (moved,) = update.step((theta,), g, 0.05, 3)
        expected = (
            theta - 0.05 * (g + 0.2 * theta) + (2 * 0.05 * 0.3) ** 0.5 * update.noise(theta, 3)
        )
        torch.testing.assert_close(moved, expected, rtol=1e-14, atol=0)

    def test_bits_are_the_same_alone_among_replicas_and_again(self):
        update, theta, g = self.langevin(), torch.randn(3, 40), torch.randn(3, 40)
        (together,) = update.step((theta,), g, 0.05, 3)
        (alone,) = update.step((theta[0],), g[0], 0.05, 3)
        assert torch.equal(together[0], alone)
        assert torch.equal(together, self.langevin().step((theta,), g, 0.05, 3)[0])
        (transformed,) = torch.func.vmap(lambda _: update.step((theta[0],), g[0], 0.05, 3))(
            torch.zeros(2)
        )
        assert torch.equal(transformed[1], alone)

    def test_single_precision_rounds_the_same_noise(self):
        update = self.langevin()
        kinds = (torch.float32, torch.float64)
        single, double = (update.noise(torch.zeros(9, dtype=k), 2) for k in kinds)
        assert torch.equal(single, double.float())

    def test_every_step_replica_seed_and_phase_has_its_own(self, float64):
        theta = torch.zeros(2, 2000)
        first = self.langevin().noise(theta, 1)
        others = [
            self.langevin().noise(theta, 2)[0],
            first[1],
            self.langevin(seed=5).noise(theta, 1)[0],
            self.langevin(path=("order", 2)).noise(theta, 1)[0],
        ]
        for other in others:
            # Independent normal numbers correlate like 1/sqrt(2000).
            assert abs(float((first[0] * other).mean())) < 0.12
        assert float(first.mean().abs()) < 0.08
        assert abs(float(first.var()) - 1) < 0.12

    def test_the_stationary_law_is_boltzmanns(self, float64):
        # On 1/2 a theta^2 the chain's variance is exactly tau / (a (1 - lr a / 2)).
        update = Langevin(temperature=0.5, seed=1)
        theta, a, lr = torch.zeros(1, 4000), 2.0, 0.1
        for count in range(1, 60):
            (theta,) = update.step((theta,), a * theta, lr, count)
        expected = 0.5 / (a * (1 - lr * a / 2))
        assert float(theta.var()) == pytest.approx(expected, rel=0.1)
