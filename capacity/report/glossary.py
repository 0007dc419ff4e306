"""Every symbol and term of the pages: what it means, its formula, and where that comes from.

The first mention in a heading of a table, a caption or a paragraph links to the entry; the page's
script shows the entry there, on hover and on focus.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup, escape

_COMPATIBLE = "2602.07950"
_JACOBIAN = "2412.07003"
_SPEED = "2601.17607"
_W2 = "2307.14653"
OURS = "This project's reading"


@dataclass(frozen=True)
class Term:
    """A symbol or a term.

    Attributes:
        name: As it is printed.
        pattern: Finds it in a text: a regular expression.
        meaning: A sentence or two.
        formula: The formula; empty where it has none.
        source: An arXiv number, or words.
    """

    name: str
    pattern: str
    meaning: str
    formula: str = ""
    source: str = "A word of this package"

    @property
    def anchor(self) -> str:
        """Its id in the page."""
        return f"term-{TERMS.index(self)}"

    @property
    def written(self) -> Markup:
        """Its formula as HTML, with indices as such."""
        set_ = r"<sub>\1\2</sub>"
        return Markup(re.sub(r"_(?:\{(.*?)\}|([A-Za-z0-9]+))", set_, str(escape(self.formula))))

    @property
    def paper(self) -> str:
        """Address of its source; empty where that is no paper on arXiv."""
        return f"https://arxiv.org/abs/{self.source}" if re.match(r"\d{4}\.", self.source) else ""


TERMS = (
    Term(
        "R_A",
        r"R_A",
        "Compatible capacity: the directions that change no old task beyond a tolerance and that "
        "training can still reach, as a log-volume in nats or counted in directions.",
        "R_A = \u00bd log det(1 + \u03b5\u207b\u00b2 J\u1d40 P_A J)",
        _COMPATIBLE,
    ),
    Term(
        "m_B",
        r"m_B",
        "Dimension of the new task: how many directions it is curved in, where the old tasks are "
        "kept; as stable rank, or as intrinsic dimension.",
        "m_B = |P_A H_B P_A|_F\u00b2 / |P_A H_B P_A|\u2082\u00b2",
        _COMPATIBLE,
    ),
    Term(
        "P_A",
        r"P_A|preserving space",
        "Projector on the preserving space: off the directions in which the old tasks' curvature "
        "exceeds 2a/d\u00b2.",
        "P_A = 1 \u2212 U U\u1d40",
        OURS,
    ),
    Term(
        "H_B",
        r"H_B",
        "Hessian of the new task's loss at the parameters that the old tasks left.",
        "H_B = \u2202\u00b2L_B / \u2202\u03b8\u00b2",
        _COMPATIBLE,
    ),
    Term(
        "J",
        r"(?:[Tt]raining )?Jacobian|\bJ(?:_t)?\b",
        "Training Jacobian: the derivative of the parameters that a training ends with, with "
        "respect to those that it started from.",
        "J_t = d\u03b8_t / d\u03b8\u2080; for SGD the product of 1 \u2212 \u03b7 H_k",
        _JACOBIAN,
    ),
    Term(
        "singular value",
        r"[Ss]ingular values?",
        "By how much J stretches a direction: above 1 a difference in the start is amplified, "
        "below 1 it is forgotten.",
        "J v = \u03c3 u",
        _JACOBIAN,
    ),
    Term(
        "log|det J|",
        r"log\|det J\|",
        "Log-volume: how much a small cloud of initial parameters is squeezed by a training.",
        "log|det J_t| = \u03a3_k log|det(1 \u2212 \u03b7 H_k)|",
        _JACOBIAN,
    ),
    Term(
        "nats",
        r"nats?\b",
        "Unit of a logarithm to base e: one nat is a factor of 2.718 in volume.",
        "1 nat = 1 / ln 2 = 1.44 bits",
        "Information theory",
    ),
    Term(
        "stable rank",
        r"[Ss]table rank",
        "How many directions share the weight of a matrix, the largest one counting 1.",
        "|M|_F\u00b2 / |M|\u2082\u00b2",
        "1501.01571",
    ),
    Term(
        "intrinsic",
        r"[Ii]ntrinsic",
        "Intrinsic dimension of a matrix: its trace over its norm.",
        "tr M / |M|\u2082",
        "1501.01571",
    ),
    Term(
        "effective rank",
        r"[Ee]ffective rank",
        "How many directions a matrix uses, by the entropy of its singular values.",
        "exp(\u2212\u03a3 p log p), p = \u03c3 / \u03a3\u03c3",
        "Roy and Vetterli, EUSIPCO 2007",
    ),
    Term(
        "eps",
        r"\u03b5|\beps\b",
        "Scale of R_A: a direction that J maps to less than \u03b5 does not count.",
        "R_A = \u00bd log det(1 + \u03b5\u207b\u00b2 J\u1d40 P_A J)",
        OURS,
    ),
    Term(
        "tolerance",
        r"[Tt]olerance(?: a\b)?",
        "The rise of the old tasks' loss that is allowed, in nats; by default the standard error "
        "of their own test loss.",
        "curvature kept free: \u03bb \u2264 2a/d\u00b2",
        OURS,
    ),
    Term(
        "displacement",
        r"[Dd]isplacement(?: d\b)?",
        "How far a single direction is taken to move; by default how far the last task moved the "
        "parameters.",
        "\u0394L = \u00bd \u03bb d\u00b2",
        OURS,
    ),
    Term(
        "criterion",
        r"[Ll]iteral(?: criterion)?|[Cc]riterion",
        "Forgetting is predicted where the new task needs more directions than the old ones leave. "
        "It does not see how the tasks are aligned; a directional form decides instead.",
        "m_B > R_A",
        _COMPATIBLE,
    ),
    Term(
        "directional",
        r"[Dd]irectional(?: form)?",
        "The form of the criterion that sees where the new task goes: the share of the old tasks' "
        "held-out samples that its gradient flow carries over their margins.",
        "df_A = K_AB a / n",
        OURS,
    ),
    Term(
        "transport cost",
        r"[Tt]ransport cost",
        "What sparing the old tasks makes learning dearer: squared displacement of the cheapest "
        "way that spares them, over that of the cheapest of all.",
        "C = r\u1d40(K_{B|A} + \u03b1)\u207b\u00b9r / r\u1d40(K_B + \u03b1)\u207b\u00b9r \u2265 1",
        OURS,
    ),
    Term(
        "kept of B's kernel",
        r"kept of B(?:'|&#39;)s kernel",
        "What sparing the old tasks leaves of the new one's effective dimensions.",
        "N_eff(K_{B|A}) / N_eff(K_B)",
        OURS,
    ),
    Term(
        "inefficiency",
        r"[Ii]nefficienc(?:y|ies)",
        "By how many times a training exceeded the least that the speed limit allows for the "
        "distance it covered; 1 is the limit.",
        "T \u03a3 |\u0394\u03b8_k|\u00b2/\u03b7_k / |\u0394\u03b8|\u00b2 \u2265 1",
        _SPEED,
    ),
    Term(
        "speed limit",
        r"[Ss]peed limit",
        "Learning time times entropy production is at least the squared distance travelled.",
        "T \u03a3 \u2265 W\u2082\u00b2",
        _SPEED,
    ),
    Term(
        "T \u0394L",
        r"T \u0394L",
        "Learning time times the drop of the loss: the cost in the limit of gradient flow; out of "
        "its regime where steps are long or noisy.",
        "T \u0394L / |\u0394\u03b8|\u00b2",
        _SPEED,
    ),
    Term(
        "entropy production",
        r"[Ee]ntropy production|T \u03a3|[Aa]ction of the path|\bAction\b|\baction\b",
        "What a training dissipates: the accumulated cost of its steps, the action of its path.",
        "\u03a3 = \u03a3_k |\u0394\u03b8_k|\u00b2 / \u03b7_k",
        _SPEED,
    ),
    Term(
        "W\u2082",
        r"W\u2082\u00b2?|W2²|Wasserstein distance",
        "Wasserstein distance between the distributions of the networks before and after; for "
        "one network the length of its displacement.",
        "W\u2082\u00b2 \u2264 E|\u03b8_T \u2212 \u03b8\u2080|\u00b2",
        _W2,
    ),
    Term(
        "learning time",
        r"[Ll]earning time",
        "Sum of the learning rates of all steps so far.",
        "T = \u03a3_k \u03b7_k",
        _SPEED,
    ),
    Term(
        "Spearman",
        r"Spearman(?:(?:'|&#39;)s rank correlation)?|[Rr]ank correlations?",
        "Correlation of two orders: 1 where they agree, 0 where they have nothing in common.",
        "\u03c1 = 1 \u2212 6 \u03a3d\u00b2 / n(n\u00b2 \u2212 1)",
        "Spearman, Am. J. Psychol. 15, 1904",
    ),
    Term(
        "R\u00b2",
        r"R\u00b2",
        "Share of the variance that the forecast explains as it is, without a refit; below 0 it "
        "is worse than the mean.",
        "1 \u2212 \u03a3(m \u2212 f)\u00b2 / \u03a3(m \u2212 mean)\u00b2",
        "Coefficient of determination",
    ),
    Term(
        "forgetting",
        r"forgetting_last|forgetting_max|[Mm]ean forgetting",
        "What a task has lost: against just after it was learned (last), or against its best so "
        "far (max).",
        "last: R_jj \u2212 R_ij; max: max_k R_kj \u2212 R_ij",
        "1801.10112",
    ),
    Term(
        "replica",
        r"[Rr]eplicas?\b",
        "One of several networks trained side by side, with an initialisation and a data order of "
        "its own; standard errors are over them.",
    ),
    Term(
        "90 % interval",
        r"90 % intervals?",
        "Holds the true value in nine of ten cases, if what it assumes is right.",
    ),
    Term(
        "uncalibrated",
        r"[Uu]ncalibrated",
        "The interval was checked on no earlier transitions that are like this one.",
    ),
    Term(
        "not resolved",
        r"[Nn]ot resolved",
        "The calculation was too short to tell the value apart from its error.",
    ),
    Term(
        "out of regime",
        r"[Oo]ut of regime",
        "A formula was used where what it assumes does not hold: the value is no measurement.",
    ),
    Term(
        "linearised",
        r"[Ll]ineari[sz](?:ed|ation)",
        "The network's outputs are taken to be linear in how far the parameters move.",
        "f(\u03b8 + \u03b4) \u2248 f(\u03b8) + \u03a6 \u03b4",
        "1902.06720",
    ),
    Term(
        "dormant",
        r"[Dd]ormant",
        "A unit whose mean activation is at most 0.025 of that of its layer.",
        "",
        "2302.12902",
    ),
    Term(
        "soft cut",
        r"\bsoft\b|\bhard cut\b",
        "Directions removed: counted above a threshold (hard), or each weighted by how far its "
        "curvature exceeds it (soft).",
        "tr sG(1 + sG)\u207b\u00b9, s = d\u00b2/2a",
        OURS,
    ),
)
"""In the order in which a text is searched."""

_FOUND = re.compile("|".join(f"(?P<t{k}>(?<![\\w|]){t.pattern})" for k, t in enumerate(TERMS)))


def linked(text: Markup, used: dict[str, Term], symbols: Callable[[str], str]) -> Markup:
    """Link the first mention of every term to its entry.

    Args:
        text: Escaped text.
        used: Receives the terms that were found, by anchor.
        symbols: Sets the symbols of escaped text.

    Returns:
        HTML.
    """
    seen: set[str] = set()
    parts, end = [], 0
    for match in _FOUND.finditer(text):
        term = TERMS[int(str(match.lastgroup)[1:])]
        if term.anchor in seen:
            continue
        seen.add(term.anchor)
        used[term.anchor] = term
        parts += [
            symbols(text[end : match.start()]),
            f'<a class="term" href="#{term.anchor}">{symbols(match[0])}</a>',
        ]
        end = match.end()
    return Markup("".join([*parts, symbols(text[end:])]))
