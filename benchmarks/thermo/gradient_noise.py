"""How large is the noise of SGD's gradients, and does SGD settle where its covariance says?

Trace and top part of C for a digits network along its training, and the variance at which SGD on
least squares settles, against lr C/(2 h - lr h^2) mode by mode.

    OMP_NUM_THREADS=1 python benchmarks/thermo/gradient_noise.py [--save] [--chains 4000]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from capacity.closed_forms import sde_stationary_variance, sgd_stationary_variance
from capacity.networks.door import fit
from capacity.networks.flat_model import FlatModel
from capacity.networks.models import build_model
from capacity.recipe.config import Model, TaskStream, Training
from capacity.tasks.build import build_tasks
from capacity.thermo.gradient_noise import gradient_noise
from capacity.training.data_order import DataOrder
from capacity.training.train import train

RESULT = Path(__file__).parent / "results" / "gradient_noise.txt"
BATCH, LR = 32, 0.2


def along_a_training() -> list[str]:
    """Print the covariance before, within and after a training on all digits."""
    stream = TaskStream(dataset="digits", scenario="permuted", experiences=1, samples=512)
    (task,) = build_tasks(stream).tasks
    flat = FlatModel(build_model(Model(hidden=(32,)), (64,), 10, 0))
    (known,) = fit(flat, flat.initial(), [task])
    theta, lines = flat.initial()[None], []
    for epochs in (0, 1, 4, 20):
        if epochs:
            plan = Training(lr=LR, epochs=epochs, batch_size=BATCH)
            order = DataOrder.planned(plan, len(task.train), replicas=1, seed=epochs)
            theta = train(flat, theta, known, plan, order).theta
        found = gradient_noise(flat, theta[0], known, known.train, batch=BATCH)
        trace = found.trace
        lines.append(
            f"{epochs:4} epochs more: tr C = {trace.value:.3g} +- {trace.stderr:.1g}, largest "
            f"eigenvalue {float(found.top[0]):.3g}, {100 * found.share:.0f} % in {len(found.top)}"
        )
    return lines


def settled(chains: int) -> list[str]:
    """Print where chains of SGD on least squares settle, in every mode of the Hessian."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    n, batch, lr = 256, 8, 0.3
    curvatures = torch.tensor([0.2, 1.0, 3.0])
    # 1/2 (theta - y)' H (theta - y): the same Hessian for every sample, so C does not move.
    y = torch.randn(n, 3)
    rows = (y - y.mean(0)) * curvatures
    c = rows.square().mean(0) / batch
    theta = y.mean(0).repeat(chains, 1)
    for _ in range(200):
        index = torch.randint(n, (chains, batch))
        theta = theta - lr * curvatures * (theta - y[index].mean(1))
    lines = []
    for h, noise, seen in zip(curvatures, c, theta.var(0), strict=True):
        known = {"curvature": float(h), "lr": lr, "noise": float(noise)}
        step, sde = sgd_stationary_variance(**known), sde_stationary_variance(**known)
        lines.append(
            f"curvature {float(h):.1f}: settled at {float(seen):.5f} +- "
            f"{float(seen) * (2 / chains) ** 0.5:.5f}; theory {float(step):.5f}, its SDE "
            f"{float(sde):.5f}"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.name}")
    parser.add_argument("--chains", type=int, default=4000)
    options = parser.parse_args()
    lines = [
        f"a network of 64-32-10 on 512 digits, lr {LR}, batches of {BATCH}; float32, CPU",
        *along_a_training(),
        "least squares, batches of 8 drawn independently, lr 0.3",
        *settled(options.chains),
    ]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.save:
        RESULT.write_text(text)


if __name__ == "__main__":
    main()
