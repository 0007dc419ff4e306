"""What `training_jacobian.py` measures: four trainings, their dense Jacobians, their overlaps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.jacobian.trajectory import Trajectory
from capacity.networks.flat_model import FlatModel
from capacity.optimizers.from_recipe import from_training
from capacity.recipe.config import Training

SETTINGS = Training(
    optimizer="momentum", momentum=0.9, lr=0.1, schedule="cosine", epochs=25, batch_size=64
)
CHAOTIC, STABLE, TIGHT, MOVED = 1.1, 0.9, 0.01, 0.1
"""Above, below: outside the bulk. Within: its core. Above, of J - 1: moved."""

PLAIN, SEED, LABELS, NOISE = "digits", "another initialisation", "shuffled labels", "white noise"
REGIONS = ("chaotic", "bulk", "stable")


@dataclass(frozen=True)
class Data:
    """What one training sees: samples to train on, in order, and samples to test on."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


@dataclass(frozen=True)
class Outcome:
    """One training, and its Jacobian's singular values.

    Attributes:
        name: Which training.
        loss: Mean loss on its training data at the end.
        accuracy: On the true test data.
        sigma: Singular values of J, largest first.
        cosine: |<u_i, v_i>| of their vectors.
        moved: Number of singular values of J - 1 above `MOVED`.
    """

    name: str
    loss: float
    accuracy: float
    sigma: list[float]
    cosine: list[float]
    moved: int


@dataclass(frozen=True)
class Findings:
    """Everything that is printed and drawn.

    Attributes:
        outcomes: The trainings, the plain one first.
        sizes: Dimensions k of the compared subspaces.
        overlaps: By the other training's name and by region, the overlap with the plain one's
            k-dimensional subspace, one per size.
        rounding: Relative error of J in float32 against float64, on 64 columns.
    """

    outcomes: list[Outcome]
    sizes: list[int]
    overlaps: dict[str, dict[str, list[float]]]
    rounding: float


def digits() -> Data:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    parts = train_test_split(data.data / 16, data.target, test_size=197, random_state=0)
    x, x_test, y, y_test = map(torch.tensor, parts)
    return Data(x.float(), y, x_test.float(), y_test)


def variants(data: Data) -> dict[str, tuple[Data, int]]:
    """Give every training its data and the seed of its initialisation."""
    generator = torch.Generator().manual_seed(1)
    shuffled = data.y[torch.randperm(len(data.y), generator=generator)]
    noise = torch.rand(data.x.shape, generator=generator)
    return {
        PLAIN: (data, 0),
        SEED: (data, 1),
        LABELS: (Data(data.x, shuffled, data.x_test, data.y_test), 0),
        NOISE: (Data(noise, data.y, data.x_test, data.y_test), 0),
    }


def network(widths: Sequence[int], seed: int) -> nn.Module:
    """The published network: LeCun-normal weights, normal biases of the hidden width's scale."""
    generator = torch.Generator().manual_seed(seed)
    inputs, hidden, outputs = widths
    layers = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
    for layer in layers:
        # A normal cut at two standard deviations has 0.8796 of its scale.
        scale = layer.in_features**-0.5 / 0.87962566
        nn.init.trunc_normal_(layer.weight, 0, scale, -2 * scale, 2 * scale, generator=generator)
        nn.init.normal_(layer.bias, 0, hidden**-0.5, generator=generator)
    return nn.Sequential(layers[0], nn.GELU(approximate="tanh"), layers[1])


def trained(model: FlatModel, data: Data, training: Training) -> tuple[Trajectory, Tensor]:
    """Train on the batches in order, the same in every epoch: the path and its end."""

    def loss(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model.outputs(theta, x), y)

    update = from_training(training)
    trajectory = Trajectory(loss, update)
    dtype = data.x.dtype
    state = update.init(model.initial().to(dtype))
    rates = training.learning_rates(len(data.x))
    x, y = data.x.split(training.batch_size), data.y.split(training.batch_size)
    for k, lr in enumerate(rates):
        step = trajectory.record(state, x[k % len(x)], y[k % len(x)], lr)
        gradient = torch.func.grad(loss)(state[0], step.x, step.y)
        state = update.step(state, gradient, lr, step.count)
    return trajectory, state[0]


def dense(trajectory: Trajectory, columns: int | None = None) -> Tensor:
    """J, or its first columns."""
    like = trajectory.like
    identity = torch.eye(columns or trajectory.size, trajectory.size, dtype=like.dtype)
    # A chunk that stays in the processor's cache; a memory budget would allow all at once.
    return TrainingJacobian([trajectory], chunk=128).forward(identity).T


def outcome(
    name: str, data: Data, seed: int, training: Training, hidden: int
) -> tuple[Outcome, Tensor]:
    """Train, take J apart, and keep its right singular vectors, one per row."""
    model = FlatModel(network((data.x.shape[1], hidden, 10), seed))
    trajectory, theta = trained(model, data, training)
    j = dense(trajectory)
    sigma, cosine, rows = singular(j)
    logits = model.outputs(theta, data.x_test)
    made = Outcome(
        name=name,
        loss=float(trajectory.loss(theta, data.x, data.y)),
        accuracy=float((logits.argmax(-1) == data.y_test).float().mean()),
        sigma=sigma.tolist(),
        cosine=cosine.tolist(),
        moved=moved(j),
    )
    return made, rows


def singular(j: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular values, largest first, |<u_i, v_i>|, and the right vectors, one per row."""
    # The eigenvectors of J'J in float64: the SVD in float32 can fail on so many equal values.
    j = j.double()
    v = torch.linalg.eigh(j.T @ j).eigenvectors.flip(1)
    image = j @ v
    sigma = image.norm(dim=0)
    cosine = (v * image).sum(0).abs() / sigma.clamp(min=torch.finfo(sigma.dtype).tiny)
    return sigma, cosine, v.T


def moved(j: Tensor, above: float = MOVED) -> int:
    """The rank of J - 1: its singular values above a threshold."""
    a = j.double() - torch.eye(len(j), dtype=torch.float64)
    return int((torch.linalg.eigvalsh(a.T @ a) > above**2).sum())


def counts(sigma: Sequence[float]) -> dict[str, int]:
    """Singular values in the three regions, and in the core of the bulk."""
    chaotic = sum(s > CHAOTIC for s in sigma)
    stable = sum(s < STABLE for s in sigma)
    core = sum(abs(s - 1) < TIGHT for s in sigma)
    return {
        "chaotic": chaotic,
        "bulk": len(sigma) - chaotic - stable,
        "stable": stable,
        "core": core,
    }


def ordered(sigma: Tensor, region: str) -> Tensor:
    """Indices of singular values, those that belong to a region most clearly first."""
    keys = {"chaotic": -sigma, "bulk": (sigma - 1).abs(), "stable": sigma}
    return keys[region].argsort()


def overlaps(a: Tensor, b: Tensor, sizes: Sequence[int]) -> list[float]:
    """|A_k B_k'|_F^2 / k for the spaces of the first k orthonormal rows: 1 if they are the same.

    Args:
        a: Orthonormal rows (P, P), in the order in which they enter the space.
        b: The same of the other space.
        sizes: Dimensions k.

    Returns:
        The mean squared cosine of the principal angles per k; for random spaces it is k / P.
    """
    sums = (a @ b.T).square().cumsum(0).cumsum(1).diagonal()
    return [float(sums[k - 1]) / k for k in sizes]


def region_of(outcome: Outcome, values: Sequence[float], region: str) -> Tensor:
    """Pick the values that belong to the singular values of a region."""
    sigma = torch.tensor(outcome.sigma)
    masks = {
        "chaotic": sigma > CHAOTIC,
        "bulk": (sigma <= CHAOTIC) & (sigma >= STABLE),
        "stable": sigma < STABLE,
    }
    return torch.tensor(values)[masks[region]]


def measured(
    data: Data, training: Training, say: Callable[[str], None], *, hidden: int = 64
) -> Findings:
    """Run the four trainings and compare them."""
    started = time.perf_counter()
    model = FlatModel(network((data.x.shape[1], hidden, 10), 0))
    double = Data(data.x.double(), data.y, data.x_test.double(), data.y_test)
    single, _ = trained(model, data, training)
    exact, _ = trained(model, double, training)
    j, truth = dense(single, 64).double(), dense(exact, 64)
    rounding = float((j - truth).norm() / truth.norm())

    sizes = sorted({*range(25, model.size, 25), model.size})
    outcomes: list[Outcome] = []
    shared: dict[str, dict[str, list[float]]] = {}
    plain_rows: dict[str, Tensor] = {}
    for name, (seen, seed) in variants(data).items():
        made, rows = outcome(name, seen, seed, training, hidden)
        outcomes.append(made)
        by_region = {r: rows[ordered(torch.tensor(made.sigma), r)] for r in REGIONS}
        if not plain_rows:
            plain_rows = by_region
        else:
            shared[name] = {r: overlaps(plain_rows[r], by_region[r], sizes) for r in REGIONS}
        say(f"{name}: done after {time.perf_counter() - started:.0f} s")
    return Findings(outcomes, sizes, shared, rounding)


def compared(findings: Findings) -> list[tuple[str, int, dict[str, float]]]:
    """Overlaps at the dimensions that the plain training's regions have, and of random spaces."""
    plain = counts(findings.outcomes[0].sigma)
    rows = []
    for region, count in (
        ("chaotic", plain["chaotic"]),
        ("bulk", plain["core"]),
        ("stable", plain["stable"]),
    ):
        at = min(range(len(findings.sizes)), key=lambda i, c=count: abs(findings.sizes[i] - c))
        size = findings.sizes[at]
        row = {name: by_region[region][at] for name, by_region in findings.overlaps.items()}
        rows.append((region, size, {**row, "random": size / len(findings.outcomes[0].sigma)}))
    return rows
