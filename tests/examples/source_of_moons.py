"""Two moons, turned from task to task: a source of data of somebody's own."""

from __future__ import annotations

import torch
from sklearn.datasets import make_moons

from capacity.recipe.config import TaskStream
from capacity.tasks import DataSource, Split, TaskSequence
from capacity.tasks.assemble import Piece, assemble
from capacity.tasks.sampling import holdout
from capacity.tasks.scenarios import angles


def moons(stream: TaskStream) -> TaskSequence:
    """Draw the moons once, and turn them about the origin."""
    x, y = map(torch.from_numpy, make_moons(200, noise=0.1, random_state=stream.seed))
    train, test = holdout(y, stream.test_fraction, seed=stream.seed)
    pieces = []
    for angle in torch.tensor(angles(stream)).deg2rad():
        turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
        turned = x.float() @ turn.T
        pieces.append(Piece(Split(turned[train], y[train]), Split(turned[test], y[test])))
    return assemble("moons", pieces, "cross_entropy")


SOURCE = DataSource(
    scenarios=("rotated",), classes=2, takes=("test_fraction",), downloads=False, build=moons
)
