"""Ensembles to test verdicts on: Gaussians in quadratic potentials, and small networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from capacity.closed_forms import gaussian_w2_squared, geodesic
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.momentum import Momentum
from capacity.optimizers.sgd import SGD
from capacity.optimizers.sgld import Langevin
from capacity.optimizers.update_map import UpdateMap
from capacity.tasks.task import Split, Task
from capacity.thermo.ensemble import Ensemble
from capacity.thermo.ensemble_record import EnsembleRecord
from capacity.thermo.landscape import Energies, Potential, TaskLandscape

DYNAMICS = ("GD", "SGD", "momentum", "Langevin")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One simulated ensemble.

    Attributes:
        system: `gaussian`, `geodesic` or `network`.
        dynamics: One of `DYNAMICS`.
        count: N.
        size: P.
        seed: Of everything.
    """

    system: str
    dynamics: str
    count: int
    size: int
    seed: int


def simulate(case: Case) -> EnsembleRecord:
    """Train the ensemble of a case, and measure it."""
    if case.system == "geodesic":
        return geodesic_record(case.count, case.size, case.seed)[0]
    return _network(case) if case.system == "network" else _gaussian(case)


def update_of(name: str, temperature: float, seed: int) -> UpdateMap:
    """The update map of a name."""
    return {
        "GD": SGD(),
        "SGD": SGD(),
        "momentum": Momentum(0.9),
        "Langevin": Langevin(temperature, seed=seed),
    }[name]


@dataclass(frozen=True, kw_only=True, eq=False)
class NoisyBowl(Potential):
    """A bowl whose every batch pulls the minimum elsewhere, for every replica on its own.

    Attributes:
        pull: (rng, replicas) to the linear terms of one batch (n, P).
        seed: Of the batches.
    """

    pull: Callable[[np.random.Generator, int], Tensor]
    seed: int
    full: bool = False

    def steps(self, replicas: Sequence[int], rates: Sequence[float]) -> Iterator[Energies]:
        """Iterate over batches."""
        rng = np.random.default_rng([self.seed, replicas[0]])
        for energy in super().steps(replicas, rates):
            term = self.pull(rng, len(replicas))
            yield lambda x, energy=energy, term=term: energy(x) - (term * x).sum(-1)


def _gaussian(case: Case) -> EnsembleRecord:
    rng = np.random.default_rng(case.seed)
    rate = torch.from_numpy(10 ** rng.uniform(-1.5, 0.5, case.size))
    target = torch.from_numpy(rng.uniform(0, 2) * rng.standard_normal(case.size))
    variance, steps = 10 ** rng.uniform(-1, 0.5), int(rng.integers(10, 40))
    lr = 10 ** rng.uniform(-2, -0.7)

    def energy(x: Tensor, _time: float) -> Tensor:
        return 0.5 * (rate * (x - target).square()).sum(-1)

    def pull(draw: np.random.Generator, count: int) -> Tensor:
        return 0.5 * rate * torch.from_numpy(draw.standard_normal((count, case.size)))

    landscape = Potential(energy=energy, batched=True)
    if case.dynamics == "SGD":
        landscape = NoisyBowl(energy=energy, batched=True, pull=pull, seed=case.seed)
    start = math.sqrt(variance) * torch.from_numpy(rng.standard_normal((case.count, case.size)))
    entropy = 0.5 * case.size * math.log(2 * math.pi * math.e * variance)
    ensemble = Ensemble(start, entropy_start=entropy)
    tau = 10 ** rng.uniform(-2, 0)
    return ensemble.learn(landscape, update_of(case.dynamics, tau, case.seed), [lr] * steps)


def _network(case: Case) -> EnsembleRecord:
    """Two layers on labels of a teacher; the widths make up P."""
    inputs = 6
    width = max(2, round((case.size - 2) / (inputs + 3)))
    generator = torch.Generator().manual_seed(case.seed)
    x = torch.randn(40, inputs, generator=generator)
    split = Split(x, (x @ torch.randn(inputs, generator=generator) > 0).long())
    task = Task(name="teacher", train=split, test=split)

    def build() -> FlatModel:
        return FlatModel(nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, 2)))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.seed)
        nets = [build() for _ in range(case.count)]
    model = nets[0]
    theta = torch.stack([net.initial() for net in nets])
    entropy = inputs * width + width
    known = entropy * math.log(2 / math.sqrt(inputs)) + (2 * width + 2) * math.log(
        2 / math.sqrt(width)
    )
    landscape = TaskLandscape(
        model=model, task=task, batch_size=8 if case.dynamics == "SGD" else 40, seed=case.seed
    )
    steps, lr = 20, 0.1 if case.dynamics != "momentum" else 0.02
    return Ensemble(theta, entropy_start=known).learn(
        landscape, update_of(case.dynamics, 1e-3, case.seed), [lr] * steps
    )


def geodesic_record(
    count: int, size: int, seed: int, *, duration: float = 2.0, steps: int = 25
) -> tuple[EnsembleRecord, float]:
    """Langevin dynamics along the geodesic, where T Sigma = W2^2, and W2^2."""
    tau, shift, variance = 0.2, 1.0, 0.6
    ends = {
        "mean_start": 0.0,
        "variance_start": 1.0,
        "mean_end": shift,
        "variance_end": variance,
    }

    def energy(theta: Tensor, time: float) -> Tensor:
        at = geodesic(**ends, duration=duration, time=min(time, duration), temperature=tau)
        away = theta - float(at.mean)
        lean, k = float(at.mean_rate), float(at.stiffness)
        return (0.5 * k * away.square() - lean * away).sum(-1)

    rng = np.random.default_rng(seed)
    start = torch.from_numpy(rng.standard_normal((count, size)))
    known = 0.5 * size * math.log(2 * math.pi * math.e)
    record = Ensemble(start, entropy_start=known).learn(
        Potential(energy=energy, moving=True, batched=True),
        Langevin(tau, seed=seed),
        [duration / steps] * steps,
    )
    return record, size * float(gaussian_w2_squared(**ends))
