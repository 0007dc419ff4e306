"""Does our training Jacobian show the published picture of arXiv 2412.07003?

Claims of Belrose & Scherlis: the singular values of J = d theta_T / d theta_0 form a chaotic part
(above 1), a bulk at 1 and a stable part (below 1); along the bulk, left and right singular vectors
coincide; the bulk depends on the inputs, hardly on the labels.

Conditions, those of the published code: scikit-learn's digits, 1,600 to train on and 197 to test,
MLP 64-64-10 with GELU (P = 4,810), momentum 0.9, cosine from 0.1 to 0, 25 epochs of 25 batches of
64 in a fixed order. Four trainings: the digits; the same with another initialisation; with shuffled
labels; with white noise for inputs. The dense J comes from pushing the identity through the
library's `TrainingJacobian` in float32, and is compared with float64 on 64 columns.

    python benchmarks/training_jacobian.py [--page reports/training-jacobian.html]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from training_jacobian_page import write
from training_jacobian_study import SETTINGS, Findings, Outcome, digits, measured
from training_jacobian_words import sentences, table

PAGE = Path(__file__).parents[1] / "reports" / "training-jacobian.html"


def loaded(path: Path) -> Findings:
    held = json.loads(path.read_text(encoding="utf-8"))
    return Findings(**{**held, "outcomes": [Outcome(**o) for o in held["outcomes"]]})


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--page", type=Path, default=PAGE, help="where the page is written")
    arguments.add_argument("--save", type=Path, help="keep the numbers in a JSON file")
    arguments.add_argument("--load", type=Path, help="draw from such a file, measure nothing")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    if chosen.load:
        findings = loaded(chosen.load)
    else:
        findings = measured(digits(), SETTINGS, partial(print, flush=True))
    if chosen.save:
        chosen.save.write_text(json.dumps(asdict(findings)), encoding="utf-8")
    print("\n".join(table(findings)))
    print("", *sentences(findings), sep="\n")
    write(findings, chosen.page)


if __name__ == "__main__":
    main()
