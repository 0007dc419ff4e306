"""How far a classifier's confidence is from how often it is right."""

from __future__ import annotations

import torch
from torch import Tensor

from capacity.networks.evaluate import outputs
from capacity.networks.flat_model import FlatModel
from capacity.tasks.task import Split, Task


@torch.no_grad()
def calibration_error(
    model: FlatModel, theta: Tensor, task: Task, split: Split, *, bins: int = 15
) -> Tensor:
    """Expected calibration error of every replica: mean gap of confidence and accuracy in bins.

    Args:
        model: The network.
        theta: Parameters (R, P).
        task: The task, which says which outputs and samples count.
        split: The samples.
        bins: Equal bins of the confidence, the largest probability (Guo et al. 2017,
            arXiv 1706.04599).

    Returns:
        Errors (R,) from 0 to 1, float64; NaN for what is no classification.
    """
    if not task.classifies:
        return torch.full((len(theta),), torch.nan, dtype=torch.float64)
    counted = task.counted(split.y)
    made = task.select(outputs(model, theta, split.x).double())
    sure, guess = made.softmax(-1)[:, counted].max(-1)
    right = (guess == split.y[counted]).double()
    place = (sure * bins).long().clamp(max=bins - 1)
    gap = torch.zeros(len(theta), bins, dtype=torch.float64, device=theta.device)
    return gap.scatter_add_(1, place, sure - right).abs().sum(-1) / int(counted.sum())
