"""What a belief paid to learn a task, against the speed limit of its whole population of networks.

For a point the law before training is a guess; a belief is its law. So F, H and the distance are
exact but for E_q[L], which is averaged over the same antithetic draws before and after, and
T (F_0 - F_T) >= d^2 in the metric of its flow (theory.md#belief) is a claim that can fail.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from capacity.base.random_streams import stream_seed
from capacity.closed_forms.fisher_rao import gaussian_distance
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from capacity.records.estimate import Estimate, Status, from_error, not_defined, with_note
from capacity.records.jackknife import jackknife
from capacity.records.notebook import InNotebook
from capacity.records.plain import Plain
from capacity.tasks.task import Split, Task

PAIRS = 16
"""Antithetic pairs behind E_q[L]."""
_CHUNK = 1024
_LOG_2PI = math.log(2 * math.pi)
_EVEN = 0.5
"""Share of the draws that carry the weight, from which Z is known."""
_SURE = 5.24
"""Student's t at 99.99 %, both sides, for 15 degrees of freedom, above the normal's 3.89."""


@dataclass(frozen=True, kw_only=True)
class BeliefCost(Plain, InNotebook):
    """The free energy that a belief spent on a task; means over replicas, with Monte Carlo errors.

    Attributes:
        geometry: `transport` or `information`.
        free_energy_before: F = E_q[V] - tau H in nats of loss, V the loss with the decay's prior.
        free_energy_after: The same at the end.
        entropy_gain: H_T - H_0 in nats.
        dissipation: Sigma = F_0 - F_T.
        energy_drop: E_0 - E_T, the improvement of the objective: the sum of the three below.
        transport: d^2/T, what the way costs at least.
        commitment: tau (H_0 - H_T), paid for the certainty that was gained.
        excess: What is left, Sigma - d^2/T: at least 0 for the flow.
        distance_sq: d^2: W2^2 for `transport`, the Fisher-Rao distance squared for `information`.
        inefficiency: T Sigma / d^2, for the flow at least 1.
        verdict: `consistent` where T Sigma >= d^2 for every replica beyond its error at 99.99 %,
            `violated` where it is less for one, as steps that are no flow can have it; else
            `inconclusive`; `not defined` under a strategy, which changes the functional.
        gibbs_fall: Sigma/tau, nats by which the divergence KL(q || e^{-V/tau}/Z) from the task's
            Gibbs law fell.
        gibbs_before: A lower bound of that divergence, whose Z is not known but estimated by
            importance sampling with the draws; tight where they weigh about the same.
        gibbs_after: The same at the end.
    """

    geometry: str
    free_energy_before: Estimate
    free_energy_after: Estimate
    entropy_gain: Estimate
    dissipation: Estimate
    energy_drop: Estimate
    transport: Estimate
    commitment: Estimate
    excess: Estimate
    distance_sq: Estimate
    inefficiency: Estimate
    verdict: str
    gibbs_fall: Estimate
    gibbs_before: Estimate
    gibbs_after: Estimate


@torch.no_grad()
def belief_cost(
    model: FlatModel,
    before: Tensor,
    after: Tensor,
    task: Task,
    training: Training,
    *,
    time: float,
    seed: int,
    alone: bool = True,
) -> BeliefCost:
    """Close the books of a task's training.

    Args:
        model: The belief.
        before: Its parameters (R, 2P) before the task, widths first.
        after: The same after it.
        task: The task, whose training split the free energy is of.
        training: The plan, for temperature and decay.
        time: T, the sum of the learning rates.
        seed: Names the draws.
        alone: Whether the task's own loss was trained on, and no strategy's beside it.

    Returns:
        The cost.

    Raises:
        ValueError: If the plan moves no belief, or a width is not above 0 and finite.
    """
    if training.belief is None or training.temperature is None:
        raise ValueError(
            "training has no belief, so its parameters are a point without a free energy; pass "
            "capacity.Training(belief='transport', temperature=1e-4, ...)"
        )
    for widths in (before.chunk(2, -1)[0], after.chunk(2, -1)[0]):
        if not bool(((widths > 0) & torch.isfinite(widths)).all()):
            raise ValueError(
                "belief has a width that is 0, negative or not finite, where its entropy is none; "
                "start from positive widths, and lower training.lr if training led there"
            )
    tau, decay = training.temperature, training.weight_decay
    energies, entropies, gibbs = [], [], []
    for point in (before, after):
        each = torch.stack([
            _drawn_losses(model.of_replica(r), row, task, task.train, seed=seed, pairs=PAIRS)
            for r, row in enumerate(point)
        ])
        prior = 0.5 * decay * point.double().square().sum(-1).cpu()
        energies.append(each.mean(-1) + prior[:, None])
        entropies.append(entropy(point))
        gibbs.append(
            gibbs_bound(
                torch.stack([
                    _log_weights(model.of_replica(r), row, losses[:, :2], tau, decay, seed=seed)
                    for r, (row, losses) in enumerate(zip(point, each, strict=True))
                ])
            )
        )
    free = [e - tau * h[:, None] for e, h in zip(energies, entropies, strict=True)]
    spent = free[0] - free[1]
    belief = training.belief
    squared = distance_sq(belief.geometry, before, after, width_rate=belief.width_rate)
    mean, error = _of_draws(spent)
    note = f"Error of {PAIRS} antithetic pairs of draws, the same before and after."
    fell = _mean(spent / tau, note)
    excess, sure = time * mean - squared, _SURE * time * error
    if not alone:
        verdict = "not defined"
    elif bool((excess > sure).all()):
        verdict = "consistent"
    elif bool((excess < -sure).any()):
        verdict = "violated"
    else:
        verdict = "inconclusive"
    moved = bool((squared > 0).all())
    return BeliefCost(
        geometry=training.belief.geometry,
        free_energy_before=_mean(free[0], note),
        free_energy_after=_mean(free[1], note),
        entropy_gain=from_error(float((entropies[1] - entropies[0]).mean()), 0.0),
        dissipation=_mean(spent, note),
        energy_drop=_mean(energies[0] - energies[1], note),
        transport=from_error(float(squared.mean()) / time, 0.0),
        commitment=from_error(tau * float((entropies[0] - entropies[1]).mean()), 0.0),
        excess=_mean(spent - squared[:, None] / time, note),
        distance_sq=from_error(float(squared.mean()), 0.0),
        inefficiency=_mean(time * spent / squared[:, None], note)
        if moved
        else not_defined("A replica did not move: its gradient is 0, or lost in rounding."),
        verdict=verdict,
        gibbs_fall=fell,
        gibbs_before=_larger(gibbs[0], gibbs[1], fell, 1),
        gibbs_after=_larger(gibbs[1], gibbs[0], fell, -1),
    )


@torch.no_grad()
def expected_losses(
    model: FlatModel, theta: Tensor, task: Task, split: Split, *, seed: int, pairs: int = PAIRS
) -> Tensor:
    """Draw the loss of a belief: each number an unbiased estimate of E_q[L].

    Args:
        model: The belief.
        theta: Its parameters (2P,).
        task: The task, for its loss.
        split: The samples.
        seed: Names the draws: the same seed gives the same noise at other parameters.
        pairs: How many.

    Returns:
        Losses (pairs,), float64, on the CPU.
    """
    return _drawn_losses(model, theta, task, split, seed=seed, pairs=pairs).mean(-1)


def _drawn_losses(
    model: FlatModel, theta: Tensor, task: Task, split: Split, *, seed: int, pairs: int
) -> Tensor:
    """Losses of single draws (pairs, passes), the second mirroring the first, and so on."""
    belief = model.belief
    assert belief is not None, "only a belief has draws"
    made = []
    for pair in range(pairs):
        total = torch.zeros(2 * belief.draws, dtype=torch.float64)
        for x, y in zip(split.x.split(_CHUNK), split.y.split(_CHUNK), strict=True):
            with model.training(stream_seed(seed, "belief", pair), moving=False):
                for turn in range(len(total)):
                    with belief.at_turn(turn):
                        value = float(task.loss_of(model.outputs(theta, x), y))
                    total[turn] += value * len(x) / len(split)
        made.append(total)
    return torch.stack(made)


def _log_weights(
    model: FlatModel, theta: Tensor, losses: Tensor, tau: float, decay: float, *, seed: int
) -> Tensor:
    """Log of e^{-V/tau} over the density of the belief, at the first two draws of each pair."""
    belief, (widths, means) = model.belief, theta.double().cpu().chunk(2)
    assert belief is not None, "only a belief has draws"
    made = torch.empty_like(losses)
    for pair, drawn in enumerate(losses):
        with model.training(stream_seed(seed, "belief", pair), moving=False):
            for turn, loss in enumerate(drawn):
                with belief.at_turn(turn):
                    point = belief.point(theta).double().cpu()
                noise = (point - means) / widths
                density = -widths.log().sum() - 0.5 * (noise.square() + _LOG_2PI).sum()
                prior = 0.5 * decay * point.square().sum()
                made[pair, turn] = -(loss + prior) / tau - density
    return made


def gibbs_bound(weights: Tensor) -> Estimate:
    """Bound the divergence from a law that is known up to its normaliser.

    log Z is at least the mean over draws of the log of their mean weight, and the divergence is
    log Z less the mean log weight. The bound is tight where the weights are about the same.

    Args:
        weights: Logarithms of the unnormalised density over that of the belief, at antithetic pairs
            of draws from it (R, pairs, 2).

    Returns:
        The bound in nats, mean over replicas; `uncalibrated` where fewer than half of the draws
        carry the weight.
    """
    weights = weights.double()
    count = weights.shape[1]

    def bound(w: Tensor) -> Tensor:
        flat = w.flatten(1)
        return (flat.logsumexp(-1) - math.log(flat.shape[1]) - flat.mean(-1)).mean()

    kept = [torch.arange(count) != k for k in range(count)]
    without = torch.stack([bound(weights[:, rows]) for rows in kept])
    share = (weights.flatten(1).log_softmax(-1).mul(2).logsumexp(-1).neg().exp()).min() / (
        2 * count
    )
    estimate = jackknife(float(bound(weights)), without)
    if float(share) >= _EVEN:
        return with_note(estimate, "Z by importance sampling with the draws.")
    return replace(
        estimate,
        status=Status.UNCALIBRATED,
        note=f"A lower bound: {max(1.0, float(share) * 2 * count):.2g} of {2 * count} draws carry "
        "the weight, and Z is larger than they tell.",
    )


def entropy(theta: Tensor) -> Tensor:
    """Sum log width + P/2 log(2 pi e) of beliefs.

    Args:
        theta: Parameters (R, 2P), widths first.

    Returns:
        Entropies (R,) in nats, float64, on the CPU.
    """
    widths = theta.chunk(2, -1)[0].double()
    constant = 0.5 * widths.shape[-1] * math.log(2 * math.pi * math.e)
    return widths.log().sum(-1).cpu() + constant


def distance_sq(geometry: str, before: Tensor, after: Tensor, *, width_rate: float = 1.0) -> Tensor:
    """Square the distance of beliefs in the metric of their flow.

    Args:
        geometry: `transport` for W2, `information` for Fisher-Rao.
        before: Parameters (R, 2P), widths first.
        after: The same of others.
        width_rate: Learning rate of the widths over that of the means, by which their part of the
            metric is divided.

    Returns:
        Squares (R,), float64, on the CPU.
    """
    (s0, m0), (s1, m1) = (part.double().cpu().chunk(2, -1) for part in (before, after))
    if geometry == "transport":
        return (s1 - s0).square().sum(-1) / width_rate + (m1 - m0).square().sum(-1)
    # (dm^2 + 2 ds^2/r)/s^2 is 1/r times the metric of Fisher and Rao at widths s/sqrt(r).
    unit = math.sqrt(width_rate)
    each = gaussian_distance(
        mean_start=m0.numpy(),
        deviation_start=s0.numpy() / unit,
        mean_end=m1.numpy(),
        deviation_end=s1.numpy() / unit,
    )
    return torch.from_numpy(each).square().sum(-1) / width_rate


def _larger(own: Estimate, other: Estimate, fell: Estimate, sign: int) -> Estimate:
    """Of two lower bounds the larger: the other end's is as much larger as the divergence fell."""
    assert own.value is not None
    assert other.value is not None
    assert fell.value is not None
    across = other.value + sign * fell.value
    if own.status is Status.OK or across <= own.value:
        return own
    return from_error(
        across,
        math.hypot(other.stderr or 0.0, fell.stderr or 0.0),
        n=own.n,
        status=Status.UNCALIBRATED,
        note="A lower bound: that of the other end, with what the divergence fell by.",
    )


def _of_draws(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard error over draws (R, K) of every replica."""
    return values.mean(-1), values.std(-1) / math.sqrt(values.shape[-1])


def _mean(values: Tensor, note: str) -> Estimate:
    """Average over replicas, with the error of the draws."""
    mean, error = _of_draws(values)
    stderr = float(error.square().sum().sqrt()) / len(values)
    return from_error(float(mean.mean()), stderr, n=values.shape[-1], note=note)
