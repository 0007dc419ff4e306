"""The front door: TransportTracker beside somebody else's training loop."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import capacity
from capacity.jacobian.spectrum import spectrum
from capacity.networks.flat_model import flatten
from capacity.optimizers.optimizer import stated
from capacity.records.estimate import Status
from dense import dense_jacobian, network, run_map
from optimizer_cases import TORCH

KINDS = ["sgd", "nesterov", "adam"]
"""One of each kind that the products tell apart: symmetric, heavy ball, elementwise. All of
`TORCH` where it matters what torch's own optimiser does."""


def batches(count=12):
    generator = torch.Generator().manual_seed(3)
    kind = torch.get_default_dtype()
    return [
        (
            torch.randn(16, 5, generator=generator, dtype=kind),
            torch.randint(3, (16,), generator=generator),
        )
        for _ in range(count)
    ]


def loop(model, optimiser, tracker=None, *, schedule=None, clip=None, missed=None):
    for index, (x, y) in enumerate(batches()):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        if tracker is not None and index != missed:
            tracker.observe(x, y)
        optimiser.step()
        if schedule is not None:
            schedule.step()


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_backward_gives_the_training_its_own_gradients(name, float64):
    alone, riding = network(5, 6, 3), network(5, 6, 3)
    riding.load_state_dict(alone.state_dict())
    for model in (alone, riding):
        model[0].bias.requires_grad_(False)
    first, second = (
        TORCH[name]([p for p in m.parameters() if p.requires_grad]) for m in (alone, riding)
    )
    watching = capacity.TransportTracker(alone, "cross_entropy", first, tangents=6)
    tracker = capacity.TransportTracker(riding, "cross_entropy", second, tangents=6)
    loop(alone, first, watching)
    for x, y in batches():
        tracker.backward(x, y)
        second.step()
    torch.testing.assert_close(flatten(riding), flatten(alone), rtol=1e-9, atol=1e-12)
    assert riding[0].bias.grad is None
    v = torch.randn(6, tracker.jacobian().size)
    expected = watching.jacobian().forward(v)
    torch.testing.assert_close(tracker.jacobian().forward(v), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.slow
def test_backward_shares_the_primal_pass(float64):
    model, calls = network(5, 6, 3), []
    optimiser = torch.optim.SGD(model.parameters(), lr=0.3)

    def loss(outputs, y):
        calls.append(1)
        return nn.functional.cross_entropy(outputs, y)

    tracker = capacity.TransportTracker(model, loss, optimiser, tangents=6)
    taken = []
    for x, y in batches():
        before = len(calls)
        tracker.backward(x, y)
        optimiser.step()
        taken.append(len(calls) - before)
    # The traced graph does it all once it stands, and once more when its buffers are planned.
    assert taken[0] > 0
    assert taken[2:] == [0] * (len(taken) - 2)


def test_backward_with_a_step_that_looks_at_the_batch(float64):
    model = network(5, 6, 3)

    def half(loss, state, x, y, lr, count):
        return (state[0] - lr * torch.func.grad(loss)(state[0], x, y) / 2,)

    step = capacity.BatchStep(half)
    tracker = capacity.TransportTracker(model, "cross_entropy", update=step, tangents=6)
    x, y = batches()[0]
    tracker.backward(x, y, lr=0.1)
    found = [p.grad.clone() for p in model.parameters()]
    nn.functional.cross_entropy(model(x), y).backward()
    for p, gradient in zip(model.parameters(), found, strict=True):
        torch.testing.assert_close(2 * gradient, p.grad)  # ours and torch's, added


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCH)
def test_the_recorded_path_is_the_one_that_torchs_own_optimiser_took(name, float64):
    model = network(5, 6, 3)
    optimiser = TORCH[name](model.parameters())
    tracker = capacity.TransportTracker(model, "cross_entropy", optimiser, tangents=1)
    loop(model, optimiser, tracker)
    path = tracker.jacobian().trajectories[0]
    *_, last = path.forwards()
    replayed = run_map(path, path.like)
    torch.testing.assert_close(replayed, flatten(model), rtol=1e-9, atol=1e-11)
    assert not torch.equal(last.state[0], replayed)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_spectrum_and_products_match_the_dense_jacobian(name, float64):
    model = network(5, 6, 3)
    optimiser = TORCH[name](model.parameters())
    tracker = capacity.TransportTracker(model, "cross_entropy", optimiser, tangents=20)
    loop(model, optimiser, tracker)

    jacobian = tracker.jacobian()
    dense = dense_jacobian(jacobian.trajectories[0])
    v = torch.randn(20, jacobian.size)
    torch.testing.assert_close(jacobian.forward(v), v @ dense.T, rtol=1e-9, atol=1e-10)
    truth = torch.linalg.svdvals(dense)
    assert tracker.spectrum(top=8).method == "dense"
    found = tracker.spectrum(top=8, method="krylov")
    assert found.top_resolved == 8
    for singular, expected in zip(found.singular_values, truth, strict=False):
        assert abs(singular.value - float(expected)) <= max(singular.residual, 1e-10)
        assert singular.value == pytest.approx(float(expected), rel=1e-3)
    exact = float(dense.square().sum())
    assert found.frobenius_sq.value == pytest.approx(exact), "57 dimensions are swept in full"
    exact = float((dense - torch.eye(len(dense))).square().sum())
    assert abs(found.deviation_sq.value - exact) < 4 * found.deviation_sq.stderr


@pytest.mark.slow
def test_too_few_sweeps_are_said(float64):
    model = network(5, 6, 3)
    optimiser = TORCH["momentum"](model.parameters())
    tracker = capacity.TransportTracker(model, "cross_entropy", optimiser, tangents=4)
    loop(model, optimiser, tracker)
    truth = torch.linalg.svdvals(dense_jacobian(tracker.jacobian().trajectories[0]))
    found = tracker.spectrum(top=10, sweeps=1, method="krylov")
    assert found.top_resolved < 10
    for singular in found.singular_values:
        # The rigorous statement holds resolved or not: some true value lies within the residual.
        assert float((truth - singular.value).abs().min()) <= singular.residual * (1 + 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_training_is_untouched(name):
    one = network(5, 6, 3)
    other = copy.deepcopy(one)
    torch.manual_seed(1)
    loop(one, TORCH[name](one.parameters()))
    plain = torch.rand(3)
    torch.manual_seed(1)
    optimiser = TORCH[name](other.parameters())
    tracker = capacity.TransportTracker(other, "cross_entropy", optimiser, tangents=4)
    loop(other, optimiser, tracker)
    tracker.spectrum(top=2)
    assert torch.equal(torch.rand(3), plain), "the global random state moved"
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def cycle(optimiser):
    return torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.05, total_steps=20)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nesterov", "adamw"])
def test_a_schedule_that_moves_momentum_is_followed(name, float64):
    model = network(5, 6, 3)
    optimiser = TORCH[name](model.parameters())
    schedule = cycle(optimiser)
    tracker = capacity.TransportTracker(model, "cross_entropy", optimiser, tangents=4)
    loop(model, optimiser, tracker, schedule=schedule)
    trajectory = tracker.jacobian().trajectories[0]
    updates = {step.update for step in trajectory.forwards()}
    assert len(updates) == len(trajectory), "the schedule moves the momentum at each step"

    def whole(theta):
        state = trajectory.update.init(theta)
        for step in trajectory.forwards():
            gradient = torch.func.grad(trajectory.loss)(state[0], step.x, step.y)
            state = step.update.step(state, gradient, step.lr, step.count)
        return state[0]

    torch.testing.assert_close(whole(trajectory.like), flatten(model), rtol=1e-9, atol=1e-11)
    dense = torch.func.jacfwd(whole)(trajectory.like)
    v = torch.randn(4, trajectory.size)
    torch.testing.assert_close(tracker.jacobian().forward(v), v @ dense.T, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(tracker.jacobian().adjoint(v), v @ dense, rtol=1e-9, atol=1e-10)


def test_an_option_that_changes_the_kind_of_step_is_refused(float64):
    model = network(5, 6, 3)
    optimiser = TORCH["sgd"](model.parameters())
    tracker = capacity.TransportTracker(model, "cross_entropy", optimiser, tangents=4)
    (x, y), *_ = batches()
    optimiser.param_groups[0]["momentum"] = 0.9
    with pytest.raises(ValueError, match="started as sgd and is now momentum"):
        tracker.observe(x, y)
    optimiser.param_groups[0].update(momentum=0, maximize=True)
    with pytest.raises(ValueError, match="maximize"):
        tracker.observe(x, y)


# A path that the optimiser did not take has a Jacobian, too: the wrong one.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "wrong"),
    [
        *((name, torch.float32, {"clip": 0.05}) for name in TORCH),
        *((name, torch.float64, {"missed": 4}) for name in KINDS),
        ("sgd", torch.float32, {"missed": 4}),
        ("adam", torch.float64, {"clip": 0.05}),
    ],
)
def test_another_path_than_the_optimisers_is_refused(name, kind, wrong):
    torch.set_default_dtype(kind)
    model = network(5, 6, 3)
    optimiser = TORCH[name](model.parameters())
    tracker = capacity.TransportTracker(model, "cross_entropy", optimiser, tangents=4)
    with pytest.raises(ValueError, match=r"step \d+ was not the observed one"):
        loop(model, optimiser, tracker, **wrong)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sgd", "nesterov", "adam", "rmsprop"])
def test_a_long_training_in_single_precision_is_not_refused(name):
    model = network(5, 6, 3)
    optimiser = TORCH[name](model.parameters())
    tracker = capacity.TransportTracker(model, "cross_entropy", optimiser, tangents=1)
    for _ in range(20):
        loop(model, optimiser, tracker)
    assert len(tracker.jacobian().trajectories[0]) == 240


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_log_volume_per_optimiser(name, float64):
    model = network(5, 6, 3)
    optimiser = TORCH[name](model.parameters())
    tracker = capacity.TransportTracker(model, "cross_entropy", optimiser, tangents=4)
    loop(model, optimiser, tracker)
    truth = float(torch.linalg.slogdet(dense_jacobian(tracker.jacobian().trajectories[0]))[1])
    found = tracker.log_volume()
    assert found.status is Status.OK
    assert abs(found.value - truth) < 4 * found.stderr + 1e-8
    # Kept for as long as no step is added: with moments it takes all columns of J_t.
    assert tracker.log_volume() is found
    loop(model, optimiser, tracker)
    assert tracker.log_volume().value < found.value


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sgd", "nesterov", "adamw"])
def test_a_loop_that_clips_is_followed(name, float64):
    model = network(5, 6, 3)
    optimiser = TORCH[name](model.parameters())
    tracker = capacity.TransportTracker(
        model, "cross_entropy", optimiser, clip_norm=0.3, tangents=4
    )
    loop(
        model, optimiser, tracker, schedule=cycle(optimiser) if name == "adamw" else None, clip=0.3
    )
    jacobian = tracker.jacobian()
    path = jacobian.trajectories[0]
    *_, last = path.forwards()
    final = stated(last.update).advance(path.loss, last.state, last.x, last.y, last.lr, last.count)[
        0
    ]
    torch.testing.assert_close(final, flatten(model), rtol=1e-9, atol=1e-11)
    gradients = [torch.func.grad(path.loss)(s.state[0], s.x, s.y).norm() for s in path.forwards()]
    assert max(gradients) > 0.3, "nothing was clipped"

    def whole(theta):
        state = path.update.init(theta)
        for s in path.forwards():
            state = stated(s.update).advance(path.loss, state, s.x, s.y, s.lr, s.count)
        return state[0]

    dense = torch.func.jacfwd(whole)(path.like)
    v = torch.randn(4, jacobian.size)
    torch.testing.assert_close(jacobian.forward(v), v @ dense.T, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(jacobian.adjoint(v), v @ dense, rtol=1e-9, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_clipping_to_another_norm_than_announced_is_refused(name, float64):
    model = network(5, 6, 3)
    optimiser = TORCH[name](model.parameters())
    tracker = capacity.TransportTracker(
        model, "cross_entropy", optimiser, clip_norm=0.05, tangents=4
    )
    with pytest.raises(ValueError, match=r"step \d+ was not the observed one"):
        loop(model, optimiser, tracker, clip=0.2)


@pytest.mark.slow
def test_a_model_that_changes_between_steps_is_refused(float64):
    model = network(5, 6, 3)
    tracker = capacity.TransportTracker(model, "cross_entropy", tangents=4)
    (x, y), *_ = batches()
    tracker.observe(x, y, lr=0.1)
    kept = model[2]
    model[2] = nn.Linear(6, 4)
    with pytest.raises(ValueError, match=r"'2.bias' was \(3,\) and now \(4,\)"):
        tracker.observe(x, y, lr=0.1)
    # The same number of parameters in another shape is another theta, too.
    model[2] = nn.Linear(7, 3, bias=False)
    with pytest.raises(ValueError, match=r"'2.bias' was \(3,\) and now not trainable or absent"):
        tracker.observe(x, y, lr=0.1)
    model[2] = kept.requires_grad_(False)
    with pytest.raises(ValueError, match="not trainable"):
        tracker.observe(x, y, lr=0.1)
    assert len(tracker.jacobian().trajectories[0]) == 1


NET = nn.Linear(3, 2)


def adam_with_steps():
    optimiser = torch.optim.Adam(NET.parameters())
    NET.weight.grad = torch.ones_like(NET.weight)
    optimiser.step()
    NET.weight.grad = None
    return optimiser


BAD = {
    "dampening": (
        lambda: torch.optim.SGD(NET.parameters(), lr=1, momentum=0.9, dampening=0.1),
        "dampening",
    ),
    "amsgrad": (lambda: torch.optim.Adam(NET.parameters(), amsgrad=True), "amsgrad"),
    "centred": (lambda: torch.optim.RMSprop(NET.parameters(), centered=True), "centered"),
    "other": (lambda: torch.optim.Rprop(NET.parameters()), "Rprop"),
    "partial": (lambda: torch.optim.SGD([NET.weight], lr=1), "exactly the model's"),
    "used": (adam_with_steps, "taken steps already"),
}


@pytest.mark.parametrize("case", BAD)
def test_optimisers_that_are_not_tracked_are_refused(case):
    make, said = BAD[case]
    with pytest.raises(ValueError, match=said):
        capacity.TransportTracker(NET, "cross_entropy", make())


@pytest.mark.slow
def test_other_bad_input():
    with pytest.raises(ValueError, match=r"tangents = 99 exceeds the 8"):
        capacity.TransportTracker(NET, "mse", tangents=99)
    with pytest.raises(ValueError, match="did you mean 'cross_entropy'"):
        capacity.TransportTracker(NET, "crossentropy", tangents=2)
    tracker = capacity.TransportTracker(NET, "cross_entropy", tangents=2)
    with pytest.raises(ValueError, match="lr is missing"):
        tracker.observe(torch.randn(4, 3), torch.zeros(4).long())
    with pytest.raises(ValueError, match="no step was tracked"):
        tracker.spectrum()
    x, y = torch.randn(4, 3), torch.zeros(4).long()
    tracker.observe(x, y, lr=0.1)
    with pytest.raises(ValueError, match="top = 99 exceeds"):
        spectrum(tracker.jacobian(), x, x, top=99, sweeps=1, generator=torch.Generator())
