"""Steps of a user's own: their products, their tracking, and what is refused."""

from __future__ import annotations

import doctest

import pytest
import torch
from torch import nn
from torch.func import grad, vmap

import capacity
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.jacobian.trajectory import Trajectory
from capacity.networks.flat_model import FlatModel, flatten
from capacity.optimizers import own_steps
from capacity.optimizers.adam import Adam
from capacity.optimizers.from_recipe import from_training
from capacity.optimizers.optimizer import stated
from capacity.optimizers.own_steps import BatchStep, GradientStep
from capacity.optimizers.sgld import Langevin
from capacity.recipe.config import Training
from dense import digits_task, network, trained

MAPS = {
    "sgd, decay": {"weight_decay": 0.05},
    "nesterov": {"optimizer": "momentum", "nesterov": True, "weight_decay": 0.01},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
    "rmsprop": {"optimizer": "rmsprop"},
    "sgld": {"optimizer": "sgld", "temperature": 1e-4, "weight_decay": 0.02},
    "clipped momentum": {"optimizer": "momentum", "clip_norm": 0.3},
    "clipped adam": {"optimizer": "adam", "clip_norm": 0.3},
}


def relative(error, truth):
    return float((error - truth).norm() / truth.norm())


def along(trajectory, update):
    """The same path, taken by another kind of step."""
    other = Trajectory(trajectory.loss, update)
    other.products = trajectory.products  # whose graphs stand
    for step in trajectory.forwards():
        other.record(step.state, step.x, step.y, step.lr)
    return TrainingJacobian([other])


def dense(trajectory):
    def whole(theta):
        state = trajectory.update.init(theta)
        for s in trajectory.forwards():
            state = stated(trajectory.update).advance(
                trajectory.loss, state, s.x, s.y, s.lr, s.count
            )
        return state[0]

    return torch.func.jacfwd(whole)(trajectory.like)


@pytest.mark.slow
@pytest.mark.parametrize("name", MAPS)
def test_every_way_to_differentiate_a_step_agrees(name, float64):
    """The quick products, the JVP of the algebra, and the true JVP and VJP of the whole step."""
    rate = 0.003 if "adam" in name or name == "rmsprop" else 0.1
    training = Training(lr=rate, epochs=3, batch_size=48, **MAPS[name])
    model, update = FlatModel(network(64, 3, 10)), from_training(training)
    path = trained(model, digits_task(count=96), training, update=update)
    moments = len(update.init(path.like)) - 1

    def whole(loss, state, x, y, lr, count):
        return update.step(state, grad(loss)(state[0], x, y), lr, count)

    quick = TrainingJacobian([path])
    general = along(path, GradientStep(update.step, moments=moments))
    true = along(path, BatchStep(whole, moments=moments))
    v = torch.randn(4, model.size)
    written_out = dense(path)
    for direction, truth in (("forward", v @ written_out.T), ("adjoint", v @ written_out)):
        for jacobian in (quick, general, true):
            assert relative(getattr(jacobian, direction)(v), truth) < 1e-10
    u = torch.randn(4, model.size)
    products = (quick.forward(v) * u).sum(-1), (v * quick.adjoint(u)).sum(-1)
    torch.testing.assert_close(*products, rtol=1e-10, atol=1e-12)
    assert relative(quick.forward(v), v) > 0.02, "long enough to be told from doing nothing"


def sharpness_aware(loss, state, x, y, lr, count):
    theta, m = state
    g = grad(loss)(theta, x, y)
    m = 0.8 * m + grad(loss)(theta + 0.05 * g / g.norm(), x, y)
    return theta - lr * m, m


def per_sample_clipped(loss, state, x, y, lr, count):
    each = vmap(lambda a, b: grad(loss)(state[0], a[None], b[None]))(x, y)
    scale = 0.5 / (0.5 + each.norm(dim=1, keepdim=True))
    return (state[0] - lr * (scale * each).mean(0),)


def lion(state, g, lr, count):
    theta, m = state
    return theta - lr * torch.tanh(20 * (0.9 * m + 0.1 * g)), 0.99 * m + 0.01 * g


class Averaging:
    """An update map of the user's own, with nothing but what is asked for."""

    name = "averaging"

    def init(self, theta):
        return (theta, torch.zeros_like(theta))

    def step(self, state, gradient, lr, count):
        theta, mean = state
        mean = mean + (gradient - mean) / count
        return theta - lr * mean, mean


OWN = {
    "SAM": BatchStep(sharpness_aware, moments=1, name="SAM"),
    "per sample": BatchStep(per_sample_clipped),
    "lion": GradientStep(lion, moments=1),
    "sgld": Langevin(temperature=1e-3),
    "adam, by hand": Adam(),
    "class": Averaging(),
}


def batches(count=6, samples=16):
    generator = torch.Generator().manual_seed(3)
    kind = torch.get_default_dtype()
    for _ in range(count):
        x = torch.randn(samples, 5, generator=generator, dtype=kind)
        yield x, torch.randint(3, (samples,), generator=generator)


def write(module, theta):
    with torch.no_grad():
        nn.utils.vector_to_parameters(theta, module.parameters())


def loop(model, update, tracker, *, lr=0.05, wrong=None):
    """A loop of the user's own, that moves the module and keeps its own moments."""
    flat = FlatModel(model)

    def loss(theta, x, y):
        return nn.functional.cross_entropy(flat.outputs(theta, x), y)

    state = update.init(flatten(model))
    for count, (x, y) in enumerate(batches(), start=1):
        tracker.observe(x, y, lr=lr)
        state = stated(update).advance(loss, state, x, y, lr * (wrong if wrong else 1), count)
        write(model, state[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, torch.float64) for name in OWN), ("SAM", torch.float32), ("lion", torch.float32)],
)
def test_the_tracker_follows_a_loop_of_the_users_own(name, kind):
    torch.set_default_dtype(kind)
    model, update = network(5, 4, 3), OWN[name]
    tracker = capacity.TransportTracker(model, "cross_entropy", update=update, tangents=3)
    loop(model, update, tracker)
    jacobian = tracker.jacobian()
    path = jacobian.trajectories[0]
    # The moments, which the tracker never saw, lead to where the user's led.
    *_, last = path.forwards()
    final = stated(path.update).advance(path.loss, last.state, last.x, last.y, last.lr, last.count)[
        0
    ]
    rounding = 1e-5 if kind is torch.float32 else 1e-12
    assert relative(final, flatten(model)) < rounding
    v, written_out = torch.randn(3, jacobian.size), dense(path)
    assert relative(jacobian.forward(v), v @ written_out.T) < 10 * rounding
    assert relative(jacobian.adjoint(v), v @ written_out) < 10 * rounding
    truth = float(torch.linalg.slogdet(written_out)[1])
    found = tracker.log_volume()
    assert found.value == pytest.approx(truth, abs=4 * found.stderr + 100 * rounding)


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_another_path_than_the_observed_is_refused(name, float64):
    model, update = network(5, 4, 3), OWN[name]
    tracker = capacity.TransportTracker(model, "cross_entropy", update=update, tangents=3)
    with pytest.raises(ValueError, match="step 1 was not the observed one"):
        loop(model, update, tracker, wrong=2.0)


def noisy(state, g, lr, count):
    return (state[0] - lr * (g + torch.randn_like(g)),)


def in_place(state, g, lr, count):
    state[0].sub_(lr * g)
    return state


def hides_gradient(state, g, lr, count):
    return (state[0] - lr * g.detach(),)


def hides_moment(state, g, lr, count):
    m = 0.9 * state[1] + g
    return state[0] - lr * g - lr * 0.9 * state[1].detach(), m


def through_numpy(state, g, lr, count):
    return (state[0] - lr * torch.from_numpy(g.detach().numpy()),)


def quantised(state, g, lr, count):
    return (((state[0] - lr * g) * 1024).round() / 1024,)


def forgets_the_perturbation(loss, state, x, y, lr, count):
    g = grad(loss)(state[0], x, y)
    ahead = (state[0] + 0.5 * g / g.norm()).detach()
    return (state[0] - lr * grad(loss)(ahead, x, y),)


def fails(loss, state, x, y, lr, count):
    return (state[0] - lr * grad(loss)(state[0][:2], x, y),)


REFUSED = {
    "bare function": (hides_gradient, r"is a function; wrap a function .*GradientStep"),
    "draws noise": (GradientStep(noisy, name="N"), "'N' gives another result each time"),
    "in place": (GradientStep(in_place, name="N"), "'N' writes to its state in place"),
    "detached": (GradientStep(hides_gradient, name="N"), "'N' has no true derivative: theta moves"),
    "detached moment": (
        GradientStep(hides_moment, moments=1, name="N"),
        "'N' has no true derivative: theta moves",
    ),
    "numpy": (GradientStep(through_numpy, name="N"), "'N' (has no true|cannot be diff)"),
    "rounded": (GradientStep(quantised, name="N"), "'N' has no true derivative"),
    "detached batch step": (
        BatchStep(forgets_the_perturbation, name="N"),
        "'N' has no true derivative",
    ),
    "fails": (BatchStep(fails, name="N"), "'N' failed at step 1"),
    "one tensor": (GradientStep(lambda s, g, lr, c: s[0] - lr * g, name="N"), "tuple of 1 tensors"),
    "no moment": (
        GradientStep(lambda s, g, lr, c: (s[0] - lr * g,), moments=1, name="N"),
        "tuple of 2 tensors",
    ),
    "other shape": (
        GradientStep(lambda s, g, lr, c: (s[0][1:] - lr * g[1:],), name="N"),
        "return tensors of shape",
    ),
    "other dtype": (
        GradientStep(lambda s, g, lr, c: ((s[0] - lr * g).half(),), name="N"),
        "float16",
    ),
}


NUMERIC = ["detached", "detached moment", "numpy", "rounded", "detached batch step"]
"""What only a comparison with finite differences finds, whose threshold hangs on the precision."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "kind"),
    [*((case, torch.float32) for case in REFUSED), *((case, torch.float64) for case in NUMERIC)],
)
def test_steps_without_a_jacobian_are_refused_by_name(case, kind):
    torch.set_default_dtype(kind)
    update, said = REFUSED[case]
    model = network(5, 4, 3)

    def track():
        tracker = capacity.TransportTracker(model, "cross_entropy", update=update, tangents=3)
        for x, y in batches():
            tracker.observe(x, y, lr=0.05)
            state = tracker._ahead
            write(model, state[0])
        return tracker

    with pytest.raises(ValueError, match=said):
        track()


@pytest.mark.slow
def test_refusing_a_step_loses_nothing_that_was_tracked(float64):
    model = network(5, 4, 3)

    def breaks_later(state, g, lr, count):
        return (state[0] - lr * (g if count < 2 else g.detach()),)

    update = GradientStep(breaks_later, name="N")
    tracker = capacity.TransportTracker(model, "cross_entropy", update=update, tangents=3)
    (x, y), (again, labels), *_ = batches()
    tracker.observe(x, y, lr=0.05)
    write(model, tracker._ahead[0])
    with pytest.raises(ValueError, match="no true derivative"):
        tracker.observe(again, labels, lr=0.05)
    assert len(tracker.jacobian().trajectories[0]) == 1
    assert torch.isfinite(tracker.jacobian().forward(torch.eye(39))).all()


@pytest.mark.slow
def test_a_kinked_network_is_not_refused():
    # Finite differences across a kink are no evidence against a derivative.
    model = nn.Sequential(nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
    model.append(nn.Linear(64, 3))
    update = OWN["SAM"]
    tracker = capacity.TransportTracker(model, "cross_entropy", update=update, tangents=3)
    loop(model, update, tracker)


@pytest.mark.slow
def test_a_network_with_fixed_tensors_of_single_precision_is_not_refused():
    # Finite differences need double precision, which such a network does not take.
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4).eval(), nn.Linear(4, 3))
    update = OWN["SAM"]
    tracker = capacity.TransportTracker(model, "cross_entropy", update=update, tangents=3)
    loop(model, update, tracker)
    assert torch.isfinite(tracker.jacobian().forward(torch.randn(1, tracker.jacobian().size))).all()


def test_other_bad_input():
    model = network(5, 4, 3)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="optimizer and update are both given"):
        capacity.TransportTracker(model, "mse", optimiser, update=OWN["lion"], tangents=2)
    with pytest.raises(ValueError, match=r"clip_norm = 1\.0 does not go with the batch step 'SAM'"):
        capacity.TransportTracker(model, "mse", update=OWN["SAM"], clip_norm=1.0, tangents=2)
    with pytest.raises(ValueError, match="clip_norm = 0"):
        capacity.TransportTracker(model, "mse", optimiser, clip_norm=0, tangents=2)


def test_docstring_examples():
    result = doctest.testmod(own_steps)
    assert result.attempted > 0
    assert result.failed == 0
