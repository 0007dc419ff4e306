"""Generative replay: what is drawn, by which network, and for which tasks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import grad

import capacity
from capacity.forecasting.mitigated import without_past
from capacity.networks.flat_model import FlatModel
from capacity.strategies.generative import GenerativeReplay
from capacity.strategies.mitigation import Mitigation
from capacity.strategies.step import StrategyStep
from capacity.tasks import diffusion
from capacity.tasks.build import build_tasks
from dense import digits_task, network

STREAM = capacity.TaskStream(dataset="diffusion-digits", experiences=5, samples=6)


def denoiser():
    return nn.Sequential(nn.Linear(72, 4), nn.Tanh(), nn.Linear(4, 64))


def test_the_loss_is_that_of_images_that_the_old_network_draws(float64):
    first, second = (task.to(torch.float64) for task in build_tasks(STREAM).tasks[:2])
    flat = FlatModel(denoiser())
    theta = torch.stack([flat.initial(), 1.3 * flat.initial()])
    training = capacity.Training(lr=0.1, batch_size=8)
    strategy = GenerativeReplay(generated=3, memory_batch=10**6, strength=2.0)
    made = Mitigation(strategy, flat)
    made.learned(first, theta)
    step = StrategyStep(flat, second, made.plan(second, training), 2)
    x, _, rows = step.draw(torch.arange(8).expand(2, -1))
    many = 3 * diffusion.DRAWS
    assert x.shape == (2, 8 + many, 72)
    drawn, noise = x[:, 8:], step.contribution.replay.private["target"]
    # The noise taken off again: images in [-1, 1], the same three in all of their versions.
    a, b = drawn[..., 64:65], (1 - drawn[..., 64:65]) / 2
    early = a[..., 0] > -0.9
    clean = ((drawn[..., :64] - b.sqrt() * noise) / (1 - b).clamp_min(1e-3).sqrt())[early]
    assert float(clean.abs().max()) < 1 + 1e-3
    assert not torch.equal(drawn[0], drawn[1])
    gradient, _ = step.gradients(theta, x, rows)
    share = 2 * many / (2 * many + 8)
    for r in range(2):
        new = grad(flat.loss(second))(theta[r], second.train.x[:8], second.train.y[:8])
        old = grad(flat.loss(first))(theta[r], drawn[r], noise[r])
        torch.testing.assert_close(gradient[r], (1 - share) * new + share * old)


def test_what_is_drawn_is_of_the_network_after_the_last_task():
    task = build_tasks(STREAM).tasks[0]
    flat, strategy = FlatModel(denoiser()), GenerativeReplay(generated=2)
    states = []
    for scale in (1.0, 1.0, 2.0):
        made = Mitigation(strategy, flat)
        made.learned(task, scale * flat.initial()[None])
        states.append(made.plan(task, capacity.Training()).replay.inputs)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_tasks_that_generate_nothing_are_refused_by_name_before_anything_is_trained(tmp_path):
    tasks = [digits_task((0, 1), 20), digits_task((2, 3), 20)]
    said = r"strategy 'generative_replay' replays what the network itself draws, and task"
    kinds = {
        "training": {"training": capacity.Training(strategy="generative_replay")},
        "measure": {"measure": capacity.Measure(strategies=("naive", "generative_replay"))},
    }
    for name, kind in kinds.items():
        with pytest.raises(ValueError, match=said):
            capacity.run(tasks, model=network(64, 2, 4), out=tmp_path / name, quiet=True, **kind)
        assert not list(tmp_path.glob(f"{name}/**/theta*"))
    with pytest.raises(ValueError, match=said):
        capacity.forecast(
            network(64, 2, 4), old=tasks[:1], new=tasks[1], training=capacity.Training(),
            strategies=["generative_replay"],
        )  # fmt: skip
    assert "generative_replay" not in without_past()
