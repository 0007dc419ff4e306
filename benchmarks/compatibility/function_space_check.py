"""Are the function-space measures right, held against matrices that are written out?

Conditions: 64-24-10 (tanh, P = 1,810) on scikit-learn digits, trained on the classes 0-4 (A); B are
the classes 5-9. The truth is dense and in float64: Jacobians by differentiation, the P x P matrix
M, (1 + s G_A)^-1 or the projector P_A, and solves with Phi_B M Phi_B'. Against it stand the kernels
as the package makes them, in float32 from factors of layers and with no matrix of P columns, and
sketches of them. C within 2 % is asserted for every exact form.

    python benchmarks/compatibility/function_space_check.py [--save]
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from capacity.criterion.function_space import (
    restrict_hard,
    restrict_soft,
    room,
    stable_rank,
)
from capacity.forecasting.kernel_flow import integrate
from capacity.networks.flat_model import FlatModel
from capacity.products.feature_rows import features, projected
from capacity.products.output_sketches import (
    every_output,
    lift,
    one_output,
    projected_outputs,
    sketch_error,
    summed_outputs,
    times_identity,
)
from capacity.products.output_space import metric_root, residual, task_outputs
from capacity.recipe.config import Training
from capacity.tasks.task import Split, Task
from capacity.training.data_order import DataOrder
from capacity.training.train import train

RESULTS = Path(__file__).parent / "results"
OLD, NEW = 80, 60
"""Samples of A and of B; every output of each counts."""
TIME, TOLERANCE, DISPLACEMENT = 100.0, 0.02, 2.0
GOAL = 0.02


def classes(labels: tuple[int, ...], count: int, dtype: torch.dtype) -> Task:
    data = load_digits()
    y = torch.tensor(data.target).long()
    keep = torch.isin(y, torch.tensor(labels)).nonzero().flatten()[:count]
    split = Split(torch.tensor(data.data / 16, dtype=dtype)[keep], y[keep])
    return Task(name="".join(map(str, labels)), train=split, test=split)


def network() -> FlatModel:
    torch.manual_seed(0)
    return FlatModel(nn.Sequential(nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 10)))


@dataclass(frozen=True)
class Kernels:
    """K_B, its restriction, the rows' residual, and the restricted kernel of B's GGN."""

    new: Tensor
    restricted: Tensor
    residual: Tensor
    curved: Tensor

    def measures(self) -> dict[str, float]:
        """Everything that is read off them."""
        made = room(
            self.new, self.restricted, self.residual, alpha=NEW / TIME, samples=NEW, groups=0
        )
        names = ("cost", "extra", "kept", "log_volume", "needed", "participation")
        found = {name: getattr(made, name).value for name in names}
        return {**found, "m_B": stable_rank(self.curved)}


def dense(model: FlatModel, theta: Tensor, old: Task, new: Task, kind: str) -> dict[str, float]:
    """Everything from P x P matrices, without the package's kernels or measures."""
    theta = theta.double()

    def jacobian(task: Task) -> Tensor:
        return torch.func.jacrev(lambda t: model.outputs(t, task.train.x))(theta)

    phi_a, phi_b = jacobian(old), jacobian(new)
    ggns = []
    for task, phi in ((old, phi_a), (new, phi_b)):
        p = model.outputs(theta, task.train.x).softmax(-1)
        h = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        ggns.append(torch.einsum("ncp,ncd,ndq->pq", phi, h, phi) / len(p))
    threshold = 2 * TOLERANCE / DISPLACEMENT**2
    values, vectors = torch.linalg.eigh(ggns[0])
    below = vectors[:, values <= threshold]
    projector = below @ below.T
    soft = vectors / (1 + values / threshold) @ vectors.T
    rows = phi_b.flatten(0, 1)
    k, left = rows @ rows.T, rows @ (soft if kind == "soft" else projector) @ rows.T
    r = (
        nn.functional.one_hot(new.train.y, 10) - model.outputs(theta, new.train.x).softmax(-1)
    ).flatten()
    alpha = NEW / TIME
    ridge = alpha * torch.eye(len(k), dtype=torch.float64)
    costs = [float(r @ torch.linalg.solve(m + ridge, r)) for m in (left, k)]
    modes, basis = torch.linalg.eigh(k)
    modes, basis = modes.flip(0), basis.flip(1)
    energy = (basis.T @ r).square()
    held = energy.cumsum(0) / energy.sum()
    count = int((held < 0.9).sum()) + 1
    inside = torch.linalg.eigvalsh(basis[:, :count].T @ left @ basis[:, :count])
    effective = [float((m / (m + alpha)).sum()) for m in (inside, modes[:count])]
    volumes = [float(torch.log(m + alpha).sum()) / 2 for m in (inside, modes[:count])]
    needed = torch.linalg.eigvalsh(projector @ ggns[1] @ projector)
    return {
        "cost": costs[0] / costs[1],
        "extra": costs[0] - costs[1],
        "kept": effective[0] / effective[1],
        "log_volume": volumes[0] - volumes[1],
        "needed": float(count),
        "participation": float(energy.sum() ** 2 / energy.square().sum()),
        "m_B": float(needed.square().sum() / needed.abs().max() ** 2),
    }


def sketched(
    model: FlatModel, theta: Tensor, old: Task, new: Task, kind: str, *, how: str, seed: int = 0
) -> Kernels:
    """The package's kernels, exact or sketched."""
    draw = torch.Generator().manual_seed(seed)

    def combine(n: int, like: Tensor) -> Tensor:
        if how.startswith("outputs"):
            return projected_outputs(n, 10, like, draw, kept=int(how.split()[1]))
        return one_output(n, 10, like, draw) if how == "one output" else every_output(n, 10, like)

    method = "rows" if how == "rows" else "auto"
    x_a, x_b = old.train.x, new.train.x
    f_a, f_b = (task_outputs(model, theta, task, task.train.x) for task in (old, new))
    roots = [
        metric_root(task, f, task.train.y).mT / len(f) ** 0.5
        for task, f in ((old, f_a), (new, f_b))
    ]
    # The same combinations for every sample of a task, but one output per sample: A keeps them all.
    w_a = (roots[0] if how == "one output" else combine(len(f_a), f_a) @ roots[0]).to(theta)
    w_b = combine(len(f_b), f_b)
    phi_a = features(model, theta, old, x_a, w_a, method=method)
    phi_b = features(model, theta, new, x_b, w_b.to(theta), method=method)
    psi_b = features(model, theta, new, x_b, roots[1].to(theta), method=method)
    if how.startswith("parameters"):
        kept = int(how.split()[1])
        phi_a, phi_b, psi_b = (
            projected(phi, theta, kept, torch.Generator().manual_seed(seed))
            for phi in (phi_a, phi_b, psi_b)
        )
    k, cross, k_a = phi_b.gram(phi_b), phi_a.gram(phi_b), phi_a.gram(phi_a)
    threshold = 2 * TOLERANCE / DISPLACEMENT**2
    restricted = (
        restrict_soft(k, cross, k_a, 1 / threshold)
        if kind == "soft"
        else restrict_hard(k, cross, k_a, threshold)
    )
    r = torch.einsum("nqc,nc->nq", w_b, residual(new, f_b, new.train.y)).flatten()
    curved = restrict_hard(psi_b.gram(psi_b), phi_a.gram(psi_b), k_a, threshold)
    return Kernels(k, restricted, r, curved)


def gram_errors(model: FlatModel, theta: Tensor, new: Task) -> list[str]:
    """How far the sketched K_B itself is from the exact one."""
    x, draw = new.train.x, torch.Generator().manual_seed(0)
    exact_rows = features(model, theta, new, x, every_output(NEW, 10, theta))
    exact = exact_rows.gram(exact_rows)
    made = {}
    for name, w in (
        ("5 combinations of outputs", projected_outputs(NEW, 10, theta, draw, kept=5)),
        ("one output per sample", one_output(NEW, 10, theta, draw)),
        ("pseudo-kernel", summed_outputs(NEW, 10, theta)),
    ):
        rows = features(model, theta, new, x, w)
        gram = rows.gram(rows)
        made[name] = times_identity(gram, 10) if name == "pseudo-kernel" else lift(gram, w)
    for kept in (256, 1024, 4096):
        rows = projected(exact_rows, theta, kept, torch.Generator().manual_seed(0))
        made[f"{kept} parameter projections"] = rows.gram(rows)
    lines = [f"{'sketch of K_B':<28}{'|K-K*|/|K*|':>13}{'top':>8}{'trace':>8}{'cosine':>8}"]
    for name, gram in made.items():
        off = sketch_error(exact, gram, samples=NEW)
        shown = (off.top.value, off.trace.value, off.alignment.value)
        lines.append(
            f"{name:<28}{off.frobenius.value:>13.4f}" + "".join(f"{v:>8.3f}" for v in shown)
        )
    return lines


def flow_errors(model: FlatModel, theta: Tensor, old: Task, new: Task) -> list[str]:
    """What B's flow does to A's outputs, on the exact kernel and on sketches of it."""
    f_a, f_b = (task_outputs(model, theta, task, task.train.x) for task in (old, new))
    lines = [
        f"{'flow of B to S = ' + format(TIME, 'g'):<28}{'|d theta|':>11}{'|df_A|':>9}"
        f"{'loss of A +':>13}{'share lost':>12}"
    ]
    for how in ("exact", "pseudo-kernel", "parameters 4096"):
        sketch = summed_outputs if how == "pseudo-kernel" else every_output
        phi_a, phi_b = (
            features(model, theta, task, task.train.x, sketch(len(task.train), 10, theta))
            for task in (old, new)
        )
        if how.startswith("parameters"):
            kept = int(how.split()[1])
            phi_a, phi_b = (
                projected(phi, theta, kept, torch.Generator().manual_seed(0))
                for phi in (phi_a, phi_b)
            )
        kernel = phi_b.gram(phi_b)
        flow = integrate(kernel, new, f_b, new.train.y, [TIME])[0]
        moved = flow.moved(phi_a.gram(phi_b)).view_as(f_a)
        y = old.train.y
        rise = old.loss_of(f_a + moved, y) - old.loss_of(f_a, y)
        lost = old.accuracy_of(f_a, y) - old.accuracy_of(f_a + moved, y)
        lines.append(
            f"{how:<28}{flow.distance(kernel):>11.3f}"
            f"{float(moved.square().sum(1).mean().sqrt()):>9.3f}{float(rise):>13.3f}"
            f"{float(lost):>12.3f}"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help="write results/function-space.txt")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model = network()
    tasks = {
        dtype: (classes((0, 1, 2, 3, 4), OLD, dtype), classes((5, 6, 7, 8, 9), NEW, dtype))
        for dtype in (torch.float32, torch.float64)
    }
    old, new = tasks[torch.float32]
    training = Training(optimizer="sgd", lr=0.2, epochs=20, batch_size=20)
    order = DataOrder(samples=OLD, batch_size=20, epochs=20, replicas=1, seed=0)
    theta = train(model, model.initial()[None], old, training, order).theta[0]
    lines = [
        f"Function-space measures against dense matrices: 64-24-10, P = {model.size}, {OLD} "
        f"samples of A, {NEW} of B, all outputs",
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread; "
        f"a = {TOLERANCE}, d = {DISPLACEMENT}, S = {TIME:g}",
    ]
    worst = 0.0
    for kind in ("soft", "hard"):
        truth = dense(model, theta, *tasks[torch.float64], kind)
        lines += ["", f"{kind} restriction".ljust(28) + "".join(f"{n:>14}" for n in truth)]
        lines.append(f"{'dense float64':<28}" + "".join(f"{v:>14.6g}" for v in truth.values()))
        for how in (
            "layers", "rows", "outputs 10", "outputs 5", "one output", "parameters 1024",
            "parameters 4096", "parameters 16384",
        ):  # fmt: skip
            found = sketched(model, theta, old, new, kind, how=how).measures()
            off = {name: found[name] / truth[name] - 1 for name in truth}
            lines.append(f"{how:<28}" + "".join(f"{v:>+13.3%} " for v in off.values()))
            if how in {"layers", "rows", "outputs 10"}:
                worst = max(worst, abs(off["cost"]), abs(off["extra"]), abs(off["kept"]))
                assert abs(off["cost"]) < GOAL, (kind, how, off)
                assert abs(off["m_B"]) < 0.05, (kind, how, off)
    lines += [
        "",
        *gram_errors(model, theta, new),
        "",
        *flow_errors(model, theta, old, new),
        "",
        "layers, rows, outputs 10 are exact (factors of layers, rows written out, a rotation of "
        "all outputs); the others are sketches.",
        f"Worst of C, extra cost and kept N_eff over the exact forms: {worst:.1e}; goal for C "
        f"{GOAL:.0%}: reached.",
    ]
    text = "\n".join(line.rstrip() for line in lines)
    print(text)
    if asked.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "function-space.txt").write_text(text + "\n")


if __name__ == "__main__":
    main()
