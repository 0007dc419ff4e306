"""The experiments of `benchmarks/thermo/experiments` at toy size, and their page from the records.

Beside that, what only they compute: joint laws, bounds without one replica, stages of a curriculum.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace

import angles
import anisotropy
import cnn_shown
import cnn_study
import curriculum
import ensemble_size
import gaussian_toy
import implicit_steps
import irreversibility_routes
import learning_rate
import noise_level
import numpy as np
import pytest
import quadratic
import reachable_study
import regularisers
import run
import torch
from thermo_claims import exponent
from thermo_drawing import printed
from thermo_page import to_html
from thermo_records import RESULTS, load, rounded, save
from thermo_training import digits, first_samples

from capacity.records.estimate import Estimate
from capacity.tasks.task import Split, Task
from capacity.thermo.gram_matrices import layer_grams
from capacity.thermo.wasserstein import distance
from report.test_report_contract import policy_holes

pytestmark = pytest.mark.slow

TOY = {
    "gaussian": lambda: gaussian_toy.measured(particles=30, ensembles=4, steps=40),
    "angles": lambda: angles.measured(turns=(20, 120)),
    "quadratic": lambda: quadratic.measured(starts=4),
    "learning-rate": lambda: learning_rate.measured(
        small(), rates=(0.2, 0.4), learning_time=4.0, count=2, batch=20
    ),
    "curriculum": lambda: curriculum.measured(
        small(), count=2, epochs=4, full_epochs=6, lr=0.1, stages=2
    ),
    "ensemble-size": lambda: ensemble_size.measured(
        digits(), sizes=(4, 6, 8), dimension=20, repeats=5, samples=20, steps=10
    ),
    "noise-level": lambda: noise_level.measured(
        samples=20, replicas=10, data_sets=3, betas=(1.0, 10.0)
    ),
    "cnn": lambda: cnn_study.measured(
        sizes=(12, 20), kernel_samples=20, count=2, lr=0.05, steps=200
    ),
    "fcn": lambda: cnn_study.measured(
        kind="fcn", sizes=(12, 20), kernel_samples=20, count=2, lr=0.005, steps=200
    ),
    "reachable": lambda: reachable_study.measured(
        [digits()] * 3, count=2, old_samples=20, samples=6, share=0.3, old_steps=40, lr=0.2
    ),
    "anisotropy": lambda: anisotropy.measured(rates=(0.2,), batches=(32, 64), learning_time=0.8),
    "regularisers": lambda: regularisers.measured(
        samples=20, count=2, hidden=3, steps=20, level=2.3
    ),
    "irreversibility": lambda: irreversibility_routes.measured(
        samples=20, particles=30, replicas=8, steps=20, temperatures=(0.01,)
    ),
    "implicit-steps": lambda: implicit_steps.measured(
        samples=20, count=2, hidden=3, steps=2, lengths=(0.5, 64.0)
    ),
}


def small():
    return first_samples(digits(), 60)


@pytest.mark.parametrize("name", list(run.EXPERIMENTS))
def test_an_experiment_runs_and_is_shown(name, tmp_path):
    experiment = run.EXPERIMENTS[name]
    path = tmp_path / f"{name}.json"
    record = TOY[name]()
    save(record, path)
    kept = load(experiment.kind, path)
    assert kept == rounded(record)
    section = experiment.section(kept)
    assert section.id == name
    assert section.claims
    for claim in section.claims:
        # What nothing could refute is no claim; the power is a number.
        assert re.search(r"\d", claim.refuted), claim
        assert "Cauchy" not in claim.theory
    text = "\n".join([*section.told, *(line for t in section.tables for line in printed(t))])
    assert "nan" not in text
    for figure in section.figures:
        assert figure.caption.endswith((".", ")"))
        assert "<svg" in figure.svg(narrow=True)


def test_the_page_comes_from_the_committed_records(tmp_path, capsys):
    page = tmp_path / "page.html"
    assert run.main(["--page", str(page)]) == 0
    html = page.read_text(encoding="utf-8")
    for name in run.EXPERIMENTS:
        assert (RESULTS / f"{name}.json").stat().st_size < 60_000
        assert f'<section id="{name}"' in html
    # Nothing is fetched: links lead out, nothing else does.
    assert "<script" not in html
    assert not re.search(r'(?:src|srcset)="(?!data:)', html)
    assert not re.search(r"url\((?!#)", html)
    assert "prefers-color-scheme: dark" in html
    capsys.readouterr()


def test_running_one_experiment_keeps_its_record(tmp_path, monkeypatch, capsys):
    toy = run.Experiment(gaussian_toy.Findings, TOY["gaussian"], gaussian_toy.section)
    monkeypatch.setitem(run.EXPERIMENTS, "gaussian", toy)
    page = tmp_path / "page.html"
    assert run.main(["gaussian", "--save", str(tmp_path), "--page", str(page)]) == 0
    assert load(gaussian_toy.Findings, tmp_path / "gaussian.json").particles == 30
    assert page.read_text(encoding="utf-8").count("<section id=") == 3
    assert "Every run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["nothing"], "'nothing' is not known"), (["gaussian", "--data", "cifar10"], "cnn alone")],
)
def test_bad_arguments_are_one_line(arguments, said, capsys):
    assert run.main(arguments) == 2
    assert said in capsys.readouterr().err


def test_a_record_of_another_form_is_one_line(tmp_path, capsys):
    (tmp_path / "gaussian.json").write_text('{"particles": 3}', encoding="utf-8")
    assert run.main(["--save", str(tmp_path), "--page", str(tmp_path / "page.html")]) == 2
    assert "run it again" in capsys.readouterr().err


def test_the_page_counts_verdicts():
    findings = gaussian_toy.measured(particles=30, ensembles=4, steps=40)
    section = gaussian_toy.section(findings)
    html = to_html([section])
    assert policy_holes(html) == []
    assert policy_holes(html.replace(".verdict {", ".verdict  {"))
    assert f"{len(section.claims)} claims" in html
    assert html.count('<span class="verdict') == len(section.claims)
    assert html.count("<em>Refuted by:</em>") == len(section.claims)
    assert 'id="checks"' not in html


def test_identities_are_no_claims_and_the_refuted_hypothesis_is_said():
    findings = load(learning_rate.Findings, RESULTS / "learning-rate.json")
    section = learning_rate.section(findings)
    (check,) = section.checks
    assert "Cauchy-Schwarz" in check.identity
    assert check.verdict == "meter right"
    claims = learning_rate.claims(findings)
    assert "path" not in claims
    assert claims["bound"].theory.startswith("slow rates approach the bound")
    assert claims["bound"].verdict == "does not hold"
    assert "1.433" in claims["bound"].here
    html = to_html([section])
    # The check is listed, and not counted.
    assert f"{len(section.claims)} claims" in html
    assert html.index('id="checks"') < html.index("Cauchy-Schwarz")
    # A network that did approach it would have made the claim hold.
    slow = findings.runs[0]
    near = replace(slow, of_path=Estimate(value=1.004, stderr=0.006))
    assert learning_rate.claims(replace(findings, runs=[near, *findings.runs[1:]]))[
        "bound"
    ].verdict == ("holds")


def test_an_exponent_is_a_fit_over_all_points_with_its_interval():
    xs = [1.0, 2.0, 4.0, 8.0]
    exact = exponent([(x, 3 * x**0.5) for x in xs])
    assert exact.value == pytest.approx(0.5)
    assert exact.interval == pytest.approx((0.5, 0.5))
    # Level between its ends, but not flat: two points would say 0.
    bent = exponent([(1.0, 1.0), (2.0, 2.0), (4.0, 2.0), (8.0, 1.0)])
    assert bent.interval[1] - bent.interval[0] > 1
    # Points that are not known better than 10 % have no exponent known to 1 %.
    vague = exponent([(x, Estimate(value=3 * x**0.5, stderr=0.3 * x**0.5)) for x in xs])
    logs = np.log(xs)
    assert vague.stderr == pytest.approx(0.1 / np.sqrt(((logs - logs.mean()) ** 2).sum()))
    with pytest.raises(ValueError, match="takes 3"):
        exponent([(1.0, 1.0), (2.0, 2.0)])


def test_growth_with_time_is_judged_by_its_interval():
    findings = load(cnn_study.Findings, RESULTS / "cnn.json")
    found = cnn_shown.claims(findings)["scaling"]
    assert found.verdict == "does not hold"
    assert "0.19 (0.15 to 0.24) from the warm start" in found.here
    flat = Estimate(value=2.0, stderr=0.001)
    starts = [
        replace(start, moments=[replace(m, of_path=flat) for m in start.moments])
        for start in findings.starts
    ]
    assert cnn_shown.claims(replace(findings, starts=starts))["scaling"].verdict == "holds"


def test_other_images_become_a_regression(monkeypatch):
    x, y = torch.rand(6, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1, 9])
    made = Task(name="c", train=Split(x, y), test=Split(x, y))
    monkeypatch.setattr(cnn_study, "build_tasks", lambda stream: [made])
    task = cnn_study.images("cifar10", root="somewhere")
    assert task.loss == "mse"
    assert task.train.y.shape == (6, 10)
    found = cnn_study.network((3, 8, 8), 0)
    assert found(x).shape == (6, 10)
    assert sum(p.dim() > 1 for p in found.parameters()) == 5


def test_the_rule_reads_a_known_cost():
    start = torch.randn(50, 30, generator=torch.Generator().manual_seed(0)).double()
    moved = distance(layer_grams(start, start + 2, {"theta": 30}))
    # A translation by 2 in 30 dimensions: W2^2 = 120, the path coupling and the trace bound.
    for paid, said in ((119.0, "violated"), (121.0, "consistent")):
        assert ensemble_size.verdict(ensemble_size.known_cost(paid / 4, 50), moved, 4.0) == said


def test_the_geodesic_pair_has_the_law_of_the_simulated_protocol():
    # One coordinate, Euler steps: covariance of both ends within Monte Carlo error.
    rng = np.random.default_rng(0)
    tau, duration, end, steps, count = ensemble_size.TAU, ensemble_size.DURATION, 0.7, 400, 20_000
    x = rng.standard_normal(count)
    first = x.copy()
    dt = duration / steps
    for k in range(steps):
        r = 1 + (end - 1) * (k + 0.5) / steps
        stiffness = tau / r**2 - (end - 1) / duration / r
        x = x - dt * stiffness * x + math.sqrt(2 * tau * dt) * rng.standard_normal(count)
    pair = ensemble_size.geodesic_pair(count, 2, np.random.default_rng(1))
    first_too, last_too = pair[0][:, 0], pair[1][:, 0]
    assert x.std() == pytest.approx(end, rel=0.02)
    assert last_too.std() == pytest.approx(end, rel=0.02)
    simulated, drawn = np.corrcoef(first, x)[0, 1], np.corrcoef(first_too, last_too)[0, 1]
    assert drawn == pytest.approx(simulated, abs=0.02)


def test_w2_from_a_known_start_is_unbiased():
    rng = np.random.default_rng(2)
    truth = 3 * (0.5**2 + 0.4**2)
    found = [
        noise_level.w2_from_known_start(0.5 + 0.6 * rng.standard_normal((6, 3)))
        for _ in range(4000)
    ]
    stderr = np.std(found) / len(found) ** 0.5
    assert abs(np.mean(found) - truth) < 3 * stderr
    assert stderr < 0.02


def test_the_printed_speed_limit_is_the_source_s():
    closed, printed_ = noise_level.speed_limits(0.5, 2.0)
    assert closed == pytest.approx(1.110, abs=5e-4)
    assert printed_ == pytest.approx(2.533, abs=5e-4)
    assert noise_level.speed_limits(2.0, None) == (1.0, 4.0)


def test_stages_see_the_ranking_from_its_start():
    ranking = tuple(range(19, -1, -1))
    order = curriculum.StagedOrder(
        samples=20,
        batch_size=6,
        epochs=5,
        replicas=2,
        seed=0,
        ranking=ranking,
        stages=2,
        stage_epochs=2,
    )
    epochs = [list(epoch) for epoch in order.epoch_batches(torch.device("cpu"))]
    assert [sum(b.shape[1] for b in batches) for batches in epochs] == [20] * 5
    for k, batches in enumerate(epochs):
        seen = torch.cat(batches, 1)
        allowed = set(ranking[:10]) if k < 2 else set(range(20))
        assert set(seen.flatten().tolist()) == allowed
        assert not torch.equal(seen[0], seen[1])


def test_full_batches_of_a_stage_are_the_stage():
    about = {"samples": 20, "batch_size": 20, "epochs": 2, "replicas": 2, "seed": 0}
    order = curriculum.StagedOrder(**about, ranking=tuple(range(20)), stages=4, stage_epochs=1)
    sizes = [next(iter(epoch)).shape for epoch in order.epoch_batches(torch.device("cpu"))]
    assert sizes == [(2, 5), (2, 10)]


def test_margins_rank_what_is_far_from_the_boundary_first():
    task = small()
    margin = curriculum.margins(task)
    assert len(margin) == 60
    assert float((margin > 0).double().mean()) > 0.9


def test_an_angle_s_belief_off_its_closed_form_is_refuted():
    findings = load(angles.Findings, RESULTS / "angles.json")
    assert angles.claims(findings)["closed"].verdict == "holds"
    first = findings.ways[0]
    bent = replace(findings, ways=[replace(first, deviation=1e-3), *findings.ways[1:]])
    assert angles.claims(bent)["closed"].verdict == "does not hold"
    late = replace(findings, ways=[replace(first, time=1e3), *findings.ways[1:]])
    assert angles.claims(late)["even"].verdict == "does not hold"
    assert angles.claims(late)["sooner"].verdict == "does not hold"


def test_a_wave_s_loss_is_a_cosine_of_its_phase():
    pull = angles.phase_task(np.random.default_rng(3), points=12, noise=0.3)
    rng = np.random.default_rng(3)
    x = np.arange(12) * 2 * np.pi / 12
    y = np.cos(x - rng.uniform(0, 2 * np.pi)) + 0.3 * rng.standard_normal(12)
    phases = np.array([0.3, 1.9, 4.0])
    loss = 0.5 * ((y - np.cos(x - phases[:, None])) ** 2).mean(1)
    shape = -pull.depth * np.cos(phases - pull.best)
    assert loss - loss[0] == pytest.approx(shape - shape[0], abs=1e-12)


def test_steps_that_cost_less_when_longer_are_refuted():
    findings = quadratic.measured(starts=4)
    found = quadratic.claims(findings)
    assert found["closed"].verdict == found["flow"].verdict == "holds"
    cheap = replace(findings.runs[-1], of_path=Estimate(value=1.0), lowest=0.5)
    turned = quadratic.claims(replace(findings, runs=[*findings.runs[:-1], cheap]))
    assert turned["monotone"].verdict == turned["drop"].verdict == "does not hold"
