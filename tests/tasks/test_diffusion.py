"""Digits as a diffusion model learns them: the data, the sampler, the judge, and a whole run."""

from __future__ import annotations

import base64
import json
import math
import zlib

import numpy as np
import pytest
import torch

import capacity
from capacity.recipe.config import Model
from capacity.report.sections.generated_samples import strip
from capacity.tasks import diffusion
from capacity.tasks.build import build_tasks
from capacity.tasks.generation import Judge, frechet_distance, judged
from capacity.tasks.sources import REGISTRY


def stream(**options):
    return capacity.TaskStream(dataset="diffusion-digits", **options)


def test_inputs_are_images_with_noise_and_targets_are_that_noise():
    task = build_tasks(stream(experiences=10, samples=20)).tasks[3]
    x, noise = task.train.x, task.train.y
    assert x.shape == (20 * diffusion.DRAWS, 72)
    assert noise.shape == (len(x), 64)
    u = torch.acos(x[:, 64].clamp(-1, 1)) / math.pi  # the first feature is cos(pi u)
    angle = (0.5 * math.pi * u)[:, None]
    early = u < 0.9
    images = ((x[:, :64] - angle.sin() * noise) / angle.cos())[early]
    shades = 8 * (images + 1)
    torch.testing.assert_close(shades, shades.round(), atol=1e-2, rtol=0)
    assert float(u.mean()) == pytest.approx(0.5, abs=0.01)
    assert (task.name, task.scored, task.generator.old, task.generator.new) == (
        "digit 3", False, (0, 1, 2), (3,),
    )  # fmt: skip


def test_the_same_section_gives_the_same_data():
    one, other = (build_tasks(stream(experiences=5)).tasks[1] for _ in range(2))
    assert torch.equal(one.train.x, other.train.x)
    assert torch.equal(one.test.y, other.test.y)
    assert one.name == "digits 2, 3"


@pytest.mark.slow  # some thousand images
def test_the_sampler_arrives_at_the_law_whose_optimal_denoiser_it_is_given(float64):
    # x_0 ~ N(0, 0.1 C): eps* = sqrt(1 - abar) (abar C + (1 - abar) I)^{-1} x_t.
    variances = torch.linspace(0.01, 0.06, 64)

    def optimum(inputs):
        u = torch.acos(inputs[:, 64:65].clamp(-1, 1)) / math.pi
        a, b = torch.cos(0.5 * math.pi * u), torch.sin(0.5 * math.pi * u)
        return b * inputs[:, :64] / (a**2 * variances + b**2)

    noise = torch.randn(2000, 64, generator=torch.Generator().manual_seed(0))
    made = diffusion.generate(optimum, noise, steps=100)
    torch.testing.assert_close(made.var(0), variances, rtol=0.15, atol=1e-3)


def test_the_optimal_denoiser_is_the_regression_of_the_noise_on_what_is_seen(float64):
    # x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps is linear, so E[eps | x_t] is read off covariances.
    root = torch.randn(64, 64) / 8
    covariance, u = root @ root.T, torch.tensor([0.3])
    seen = {}
    for name, x, noise in (
        ("image", torch.eye(64), torch.zeros(64, 64)),
        ("noise", torch.zeros(64, 64), torch.eye(64)),
    ):
        seen[name] = diffusion.noisy(x, u.expand(64), noise)[:, :64].T
    spread = seen["image"] @ covariance @ seen["image"].T + seen["noise"] @ seen["noise"].T
    regression = torch.linalg.solve(spread, seen["noise"]).T
    abar = torch.cos(0.5 * math.pi * u).square()
    told = (1 - abar).sqrt() * torch.linalg.inv(
        abar * covariance + (1 - abar) * torch.eye(64)
    )  # eps*(x_t) = told @ x_t
    torch.testing.assert_close(regression, told, rtol=1e-6, atol=1e-9)


def test_the_distance_is_that_of_gaussians(float64):
    random = np.random.default_rng(0)
    x = random.normal(size=(500, 3))
    root = np.array([[1.0, 0.2, 0.0], [0.2, 2.0, 0.1], [0.0, 0.1, 0.5]])
    moved = x @ root + [1.0, 0.0, -2.0]  # the optimal map, as root is symmetric and positive
    away = np.square(moved - x - (moved - x).mean(0)).sum(1).sum() / 499
    exact = float(np.square((moved - x).mean(0)).sum() + away)
    assert frechet_distance(x, moved) == pytest.approx(exact, rel=1e-9)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_a_judge_counts_what_is_taken_for_old():
    eye = np.eye(3)
    judge = Judge((eye, eye), (np.zeros(3), np.zeros(3)))
    samples = torch.eye(3)[[0, 0, 1, 2, 2, 2, 2, 2]]
    made = judged(samples, judge, [0, 1], eye, classes=3)
    assert made["shares"] == [0.25, 0.125, 0.625]
    assert made["share_old"]["value"] == pytest.approx(0.375)
    assert made["share_old"]["stderr"] == pytest.approx((0.375 * 0.625 / 8) ** 0.5)
    assert made["frechet"]["value"] >= 0
    first = judged(samples, judge, [], eye, classes=3)
    assert first["share_old"]["status"] == "not_defined"
    lost = judged(samples * torch.nan, judge, [0], eye, classes=3)
    assert lost["frechet"]["status"] == "not_defined"


def test_a_strip_is_a_png_of_the_shades():
    kind, _, text = strip([[0] * 4, [16, 8, 0, 16]]).partition(",")
    file = base64.b64decode(text)
    assert (kind, file[:8]) == ("data:image/png;base64", b"\x89PNG\r\n\x1a\n")
    start = file.index(b"IDAT") + 4
    pixels = zlib.decompress(file[start : file.index(b"IEND") - 8])
    assert pixels == bytes([0, 255, 255, 255, 0, 128, 255, 0, 255, 255, 255, 255, 0, 255])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"heads": True}, r"tasks.heads = True is no option of tasks.dataset = 'diffusion-digits'"),
        ({"scenario": "rotated"}, r"tasks.scenario = 'rotated' does not exist for diffusion"),
        ({"experiences": 3}, r"tasks.experiences = 3 does not divide the 10 classes"),
    ],
)
def test_what_it_does_not_have_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        REGISTRY.load("diffusion-digits").check(stream(**options))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    recipe = capacity.Recipe(
        name="small",
        tasks=stream(experiences=5, samples=12),
        model=Model(hidden=(8,)),
        training=capacity.Training(
            optimizer="adam", lr=0.01, epochs=1, strategy="generative_replay"
        ),
        measure=capacity.Measure(strategies=("naive", "generative_replay", "l2")),
        replicas=2,
    )
    return capacity.run(recipe, out=tmp_path_factory.mktemp("diffusion") / "run", quiet=True)


@pytest.mark.slow  # a whole run
def test_a_run_has_losses_and_images_and_no_accuracy(made):
    result = json.loads((made.path / "result.json").read_text())
    for phase in result["phases"]:
        judged_as = phase["generation"]
        assert len(judged_as["images"]) == diffusion.STRIP
        assert sum(judged_as["shares"]) == pytest.approx(1)
    assert result["phases"][0]["generation"]["share_old"]["status"] == "not_defined"
    assert 0 <= result["phases"][4]["generation"]["share_old"]["value"] <= 1
    assert result["scores"]["pairs"] == 10
    assert result["scores"]["loss_increase"]["spearman"]["value"] is not None
    assert result["final"]["loss"]["value"] > 0
    text = made.report().read_text()
    assert text.count("data:image/png;base64,") == 5
    assert "images generated after" in text
