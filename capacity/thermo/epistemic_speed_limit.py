"""The Epistemic Speed Limit of a network and its training, for people who have both."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from capacity.base.ambient import in_own_precision
from capacity.base.checks import positive_int, resolve_device
from capacity.base.random_streams import stream_seed
from capacity.base.randomness import kept_random_state
from capacity.base.slow_paths import noting
from capacity.networks.copies import copied
from capacity.networks.door import fit
from capacity.networks.evaluate import evaluate
from capacity.networks.flat_model import FlatModel
from capacity.networks.replicas import check_same_function, draw_anew, same_parameters
from capacity.optimizers.dynamics import Dynamics
from capacity.optimizers.from_recipe import NamedSizes, from_training
from capacity.optimizers.optimizer import Optimizer
from capacity.recipe.config import Training
from capacity.records.estimate import with_note
from capacity.records.intervals import BOUND_LEVEL
from capacity.records.notebook import InNotebook
from capacity.records.plain import Plain
from capacity.tasks.loaders import with_loader_batches
from capacity.tasks.task import LossFunction, Task
from capacity.tasks.tensors import as_task
from capacity.thermo.dissipation import cost_of
from capacity.thermo.ensemble import Ensemble
from capacity.thermo.ensemble_record import EnsembleRecord, Start
from capacity.thermo.entropy import initial_entropy
from capacity.thermo.initial_law import InitialLaw
from capacity.thermo.keeping_cost import price_of_keeping
from capacity.thermo.landscape import TaskLandscape
from capacity.thermo.speed_limit import SpeedLimit, judge
from capacity.thermo.task_sequence import OldTask, judge_sequence, old_task

_STARTS = ("cold", "warm")


@dataclass(frozen=True, kw_only=True, eq=False)
class EpistemicSpeedLimit(Plain, InNotebook):
    """What an ensemble of networks paid for learning, and what it had to pay at least.

    Attributes:
        tasks: One record per task, in order.
        total: The whole sequence as one way: T and Sigma add up, W2 from the first start.
        old: For every pair of an old task and a later one, what forgetting cost, and what not
            forgetting would.
        names: Names of the tasks.
        records: The measurements behind; not part of `to_dict`.
    """

    WRITTEN = ("names", "tasks", "total", "old")

    tasks: tuple[SpeedLimit, ...]
    total: SpeedLimit
    old: tuple[OldTask, ...]
    names: tuple[str, ...]
    records: tuple[EnsembleRecord, ...]


def _with_note(made: EpistemicSpeedLimit, said: str) -> EpistemicSpeedLimit:
    """Say something with every headline."""

    def noted(limit: SpeedLimit) -> SpeedLimit:
        return replace(limit, per_replica=with_note(limit.per_replica, said))

    return replace(made, tasks=tuple(map(noted, made.tasks)), total=noted(made.total))


@in_own_precision
@noting(_with_note)
def epistemic_speed_limit(
    model: nn.Module | Sequence[nn.Module] | Callable[[int], nn.Module],
    tasks: object,
    *,
    training: Training | None = None,
    replicas: int = 50,
    start: Literal["cold", "warm"] | InitialLaw = "cold",
    keeping: bool = False,
    log_volume: int = 0,
    checkpoints: int = 1,
    loss: str | LossFunction = "cross_entropy",
    level: float = BOUND_LEVEL,
    memory: int = 1 << 30,
    seed: int = 0,
    device: str | torch.device = "auto",
) -> EpistemicSpeedLimit:
    """Train an ensemble of a network on one task or several; what did it cost over the least?

    Every replica has its own initialisation, data order and noise. Sigma and W2^2 come with
    intervals; a violation is called only where both sides are known well enough
    (theory.md#speed-limit-verdict). The model is not changed.

    Args:
        model: A network, whose layers' own initialisation is drawn anew for every replica (or which
            all replicas start from, with `start="warm"`); a list of networks, one per replica; or a
            function of the replica's number that builds one.
        tasks: A task, or a *list* of tasks that are learned in turn: `Task`, an `(x, y)` pair, a
            pair of such pairs, a `Dataset`, a `DataLoader`, or an Avalanche experience.
        training: How each task is learned; None takes `Training()`.
        replicas: N. 20 to 200 are reasonable; with fewer than 4, W2^2 has no lower bound, with 1
            there is no law to speak of and the per-replica figures are all there is.
        start: `cold` draws initialisations; `warm` starts where the given network stands, or the
            given networks stand; a `capacity.InitialLaw` draws about a point, from a Gaussian or on
            a subspace.
        keeping: Also price not forgetting: the transport cost of every pair of tasks, on a few
            replicas.
        log_volume: Hessian products per step for the change of entropy through log|det J|; plain
            SGD and Langevin only. 0 for none.
        checkpoints: Per task, evenly spaced, the last at its end.
        loss: Loss of the tasks that do not bring one: `cross_entropy`, `mse`, or a function of
            (outputs, targets) that returns the mean.
        level: Nominal coverage of the intervals.
        memory: Bytes that the replicas may take; beyond it they go in chunks, one at a time if
            needed, and their positions to disk.
        seed: Root seed of initialisations, orders and noise.
        device: Where to compute: auto, cpu, cuda or cuda:N.

    Returns:
        The record: `.tasks[i].per_replica`, the inefficiency; `.verdict`, which for deterministic
        training is the identity that checks the meter; `.loss_drop_ratio` and its verdict, which
        can fail; `.signatures`; `.total`; `.old`.

    Raises:
        ValueError: If the model, a task, a number or the device cannot be used; the message says
            which and why.

    Example:
        >>> import torch, capacity
        >>> x = torch.randn(64, 4)
        >>> made = capacity.epistemic_speed_limit(
        ...     torch.nn.Linear(4, 2),
        ...     (x, (x[:, 0] > 0).long()),
        ...     training=capacity.Training(lr=0.05, epochs=20, batch_size=64),
        ...     replicas=20,
        ... )
        >>> made.total.per_replica.value >= 1
        True
        >>> made.total.verdict
        <Verdict.IDENTITY: 'identity'>
    """
    where = resolve_device(device)
    positive_int("replicas", replicas)
    if not (isinstance(start, InitialLaw) or (isinstance(start, str) and start in _STARTS)):
        raise ValueError(
            f"start = {start!r} is not known; accepted: cold, warm, or a law of your own, as "
            "capacity.InitialLaw(std=0.1)"
        )
    how = with_loader_batches(training, ())
    if how.belief is not None:
        raise ValueError(
            f"training.belief = {how.belief.geometry!r} has a population by itself, whose speed "
            "limit capacity.run reports as `.thermo.belief`; leave belief out to train replicas"
        )
    if how.curriculum is not None:
        raise ValueError(
            f"training.curriculum.first = {how.curriculum.first!r} changes the loss on the way, "
            "for which there is no speed limit here; leave curriculum out"
        )
    if how.strategy.name != "naive":
        raise ValueError(
            f"training.strategy = {how.strategy.name!r} changes the energy on the way, for which "
            "there is no speed limit here yet; use naive"
        )
    # Only training losses are measured here: nothing is held out.
    listed = list(enumerate(_listed(tasks)))
    chain = [as_task(t, name=f"task {i}", loss=loss, share=0) for i, t in listed]
    how = with_loader_batches(training, chain)
    names = tuple(task.name for task in chain)
    few = chain[0].train.first(2).x.to(where)
    flat, initial, law, entropy = _ensemble_start(model, replicas, start, seed, few)
    point = initial(0)
    twice = keeping or log_volume > 0
    chain = list(fit(flat, point, [task.to(where) for task in chain], twice=twice))
    ensemble = Ensemble(
        initial,
        replicas=replicas,
        start=law,
        entropy_start=entropy if from_training(how).dynamics(full=True).noisy else None,
        memory=memory,
    )
    records: list[EnsembleRecord] = []
    bills: list[OldTask] = []
    for i, task in enumerate(chain):
        before = [_losses(flat, ensemble.theta, t, where) for t in chain[:i]]
        rates = how.learning_rates(len(task.train))
        if not all(rates):
            raise ValueError(
                "training has steps of rate 0, as warmup begins with: no time passes in them, and "
                "their action is not defined; leave warmup out, or give rates above 0"
            )
        prices = (
            price_of_keeping(flat, ensemble.theta, chain[:i], task, duration=sum(rates))
            if keeping
            else []
        )
        update, decay = _update(how, seed, i, flat.layout)
        landscape = TaskLandscape(
            model=flat,
            task=task,
            batch_size=how.samples_per_step,
            seed=seed,
            path=("order", i),
            decay=decay,
        )
        record = ensemble.learn(
            landscape,
            update,
            rates,
            checkpoints=_spaced(positive_int("checkpoints", checkpoints), len(rates)),
            log_volume=log_volume,
            seed=seed,
        )
        records.append(record)
        rows = torch.tensor(record.replicas)
        for j, loss_before in enumerate(before):
            after = _losses(flat, ensemble.theta, chain[j], where)
            bill = old_task(
                old=names[j],
                new=names[i],
                before=loss_before[rows],
                after=after[rows],
                spent=cost_of(records[j], level=level),
            )
            bills.append(replace(bill, keeping=prices[j]) if prices else bill)
    return EpistemicSpeedLimit(
        tasks=tuple(judge(record, level=level) for record in records),
        total=judge_sequence(records, level=level),
        old=tuple(bills),
        names=names,
        records=tuple(records),
    )


def _listed(tasks: object) -> list[object]:
    # A list is several tasks, a tuple is one: ((x, y), (x, y)) is a task with its test split.
    if isinstance(tasks, list) and not tasks:
        raise ValueError("tasks is empty; pass at least one task to learn")
    return tasks if isinstance(tasks, list) else [tasks]


def _ensemble_start(
    model: nn.Module | Sequence[nn.Module] | Callable[[int], nn.Module],
    replicas: int,
    start: str | InitialLaw,
    seed: int,
    few: Tensor,
) -> tuple[FlatModel, Callable[[int], Tensor], Start, float | None]:
    """The network, the positions of the replicas, their law and its entropy."""
    device = few.device
    seeds = [stream_seed(seed, "init", replica) for replica in range(replicas)]
    if isinstance(model, nn.Module):
        flat = FlatModel(model)
        if start == "warm":
            theta = flat.initial().to(device)
            return flat.to(device), lambda _: theta, Start.DELTA, None
        if isinstance(start, InitialLaw):
            start.check_size(flat.size)
            own = flat.initial().to(device)
            draw = partial(start.draw, own, seed)
            return flat.to(device), draw, Start.COLD, start.entropy(flat.size)
        entropy = initial_entropy(model)

        def drawn(replica: int) -> Tensor:
            return FlatModel(_reset(model, seeds[replica])).initial().to(device)

        return flat.to(device), drawn, Start.COLD, entropy
    if isinstance(start, InitialLaw):
        raise ValueError(
            f"start is an InitialLaw, which draws replicas of one network; model is a "
            f"{type(model).__name__}: pass a torch.nn.Module, or start='cold' or 'warm'"
        )
    law = Start.WARM if start == "warm" else Start.COLD
    if callable(model) and _takes_number(model):
        build = model
    else:
        if not isinstance(model, Sequence):
            raise ValueError(
                f"model is a {type(model).__name__}; pass a torch.nn.Module, a list of networks, "
                "one per replica, or a function of the replica's number that builds one"
            )
        if len(model) != replicas:
            raise ValueError(
                f"model is a list of {len(model)} networks for replicas = {replicas}; pass one "
                "network per replica"
            )
        build = list(model).__getitem__

    def network(replica: int) -> nn.Module:
        with kept_random_state(seeds[replica]):
            return build(replica)

    flat = FlatModel(network(0)).to(device)

    def built(replica: int) -> Tensor:
        other = same_parameters(flat, network(replica), replica)
        theta = other.initial().to(device)
        if replica > 0:  # the first one is run by `fit`
            check_same_function(flat, other, few, replica)
        return theta

    return flat, built, law, None


def _takes_number(function: Callable[..., object]) -> bool:
    try:
        inspect.signature(function).bind(0)
    except TypeError:
        return False
    except ValueError:  # one of C's, which does not say
        return True
    return True


def _reset(model: nn.Module, seed: int) -> nn.Module:
    """A copy whose layers are initialised anew."""
    made = copied(model).cpu()
    with kept_random_state(seed):
        draw_anew(made)
    return made


def _update(
    training: Training, seed: int, phase: int, layout: NamedSizes
) -> tuple[Optimizer, float]:
    """The update map without its coupled decay, and that decay, which belongs to the energy."""
    update = from_training(training, seed=seed, path=("ensemble", phase), layout=layout)
    decay = training.weight_decay
    if not decay or update.dynamics(full=True) is Dynamics.OTHER:
        return update, 0.0
    return replace(update, weight_decay=0.0), decay  # type: ignore[type-var]


def _spaced(count: int, steps: int) -> list[int]:
    return sorted({max(1, round(steps * (k + 1) / count)) for k in range(count)})


@torch.no_grad()
def _losses(model: FlatModel, theta: Tensor, task: Task, device: torch.device) -> Tensor:
    """Training loss of every replica (N,), one after the other."""
    rows = (theta[r : r + 1].to(device) for r in range(len(theta)))
    return torch.cat([evaluate(model, row, task, task.train).loss for row in rows]).cpu()
