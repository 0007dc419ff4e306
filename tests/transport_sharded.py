"""One process of `test_distributed`: python transport_sharded.py RANK COUNT FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from capacity.jacobian.distributed import ShardedJacobian
from capacity.jacobian.spectrum import spectrum
from capacity.jacobian.training_jacobian import TrainingJacobian
from capacity.networks.flat_model import FlatModel
from capacity.recipe.config import Training
from dense import digits_task, network, trained

ROWS = 5  # uneven between two processes


def setting(optimizer="momentum"):
    """A small training, the same wherever it is called."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    model = FlatModel(network(64, 3, 10))
    training = Training(optimizer=optimizer, lr=0.05, epochs=3, batch_size=48)
    return trained(model, digits_task(), training)


def measure(jacobian):
    """Everything that is compared with a single process."""
    torch.manual_seed(1)
    rows = torch.randn(ROWS, jacobian.size)
    found = spectrum(
        jacobian, top=4, sweeps=6, method="krylov", generator=torch.Generator().manual_seed(2)
    )
    return {
        "forward": jacobian.forward(rows),
        "adjoint": jacobian.adjoint(rows),
        "one row": jacobian.forward(rows[:1]),
        "spectrum": torch.tensor([singular.value for singular in found.singular_values]),
        "counts": torch.tensor([found.counts.chaotic.value, found.counts.stable.value]),
        "products": torch.tensor(list(jacobian.products.values())),
    }


def said(call):
    """What an error says."""
    try:
        call()
    except (ValueError, FloatingPointError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def main(rank, count, folder):
    torch.set_num_threads(1)
    store = f"file://{folder / 'rendezvous'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=count)
    trajectory = setting()
    alone = TrainingJacobian([trajectory])
    shared = ShardedJacobian(alone)
    found = measure(shared)
    rows = torch.ones(2, shared.size)
    lost = rows.clone()
    lost[-1] = torch.inf  # on the last process
    errors = {
        "rows": said(lambda: shared.forward(rows + rank)),
        "count": said(lambda: shared.forward(rows[: 1 + rank])),
        "shape": said(lambda: shared.forward(rows[:, :3])),
        "infinite": said(lambda: shared.adjoint(lost)),
        "training": said(
            lambda: ShardedJacobian(TrainingJacobian([trajectory if rank == 0 else setting("sgd")]))
        ),
    }
    torch.save({"found": found, "errors": errors}, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
