"""What `training_jacobian.py` found, in words: what it prints, and what its page says."""

from __future__ import annotations

from training_jacobian_study import (
    CHAOTIC,
    LABELS,
    MOVED,
    NOISE,
    PLAIN,
    REGIONS,
    SEED,
    STABLE,
    TIGHT,
    Findings,
    compared,
    counts,
    region_of,
)

from capacity.records.numbers import number


def table(findings: Findings) -> list[str]:
    """Print the findings."""
    lines = [
        f"{'training':<24}{'train loss':>11}{'test acc':>9}{'sigma_1':>9}{'>1.1':>7}{'bulk':>7}"
        f"{'<0.9':>7}{'core':>7}{'|<u,v>| chaotic':>17}{'bulk':>7}{'stable':>8}{'rank J-1':>10}"
    ]
    for o in findings.outcomes:
        n = counts(o.sigma)
        cosines = [float(region_of(o, o.cosine, r).median()) for r in REGIONS]
        lines.append(
            f"{o.name:<24}{o.loss:>11.4f}{o.accuracy:>9.3f}{o.sigma[0]:>9.2f}{n['chaotic']:>7}"
            f"{n['bulk']:>7}{n['stable']:>7}{n['core']:>7}{cosines[0]:>17.3f}{cosines[1]:>7.3f}"
            f"{cosines[2]:>8.3f}{o.moved:>10}"
        )
    lines += ["", f"overlap with the {PLAIN} training, k directions of a region"]
    names = [*findings.overlaps, "random"]
    lines.append(f"{'region':<10}{'k':>6}" + "".join(f"{name:>26}" for name in names))
    for region, size, row in compared(findings):
        lines.append(f"{region:<10}{size:>6}" + "".join(f"{row[name]:>26.3f}" for name in names))
    lines += ["", f"J in float32 against float64, 64 columns: {findings.rounding:.1e}"]
    return lines


def facts(findings: Findings) -> list[tuple[str, str]]:
    """The plain training in four numbers."""
    plain = findings.outcomes[0]
    n = counts(plain.sigma)
    return [
        (f"chaotic directions, \u03c3 > {CHAOTIC}", number(n["chaotic"], 6)),
        (f"bulk, \u03c3 from {STABLE} to {CHAOTIC}", number(n["bulk"], 6)),
        (f"stable directions, \u03c3 < {STABLE}", number(n["stable"], 6)),
        ("largest singular value", number(plain.sigma[0], 4)),
    ]


def sentences(findings: Findings) -> list[str]:
    """Headline, regions, alignment, distance, overlap; from the sixth on, against the paper."""
    by_name = {o.name: o for o in findings.outcomes}
    plain = by_name[PLAIN]
    n = {name: counts(o.sigma) for name, o in by_name.items()}
    size = len(plain.sigma)
    cosines = {r: float(region_of(plain, plain.cosine, r).median()) for r in REGIONS}
    shared = {region: (k, row) for region, k, row in compared(findings)}
    k, row = shared["bulk"]
    stable_k, stable = shared["stable"]
    chaotic_k, chaotic = shared["chaotic"]
    return [
        f"Of {size} directions in which two initialisations can differ, training amplifies "
        f"{n[PLAIN]['chaotic']}, carries {n[PLAIN]['bulk']} through nearly unchanged and shrinks "
        f"{n[PLAIN]['stable']}.",
        f"The largest singular value is {plain.sigma[0]:.2f}; {n[PLAIN]['core']} are within "
        f"{TIGHT} of 1, and J \u2212 1 has {plain.moved} singular values above {MOVED}. The "
        f"thresholds {STABLE} and {CHAOTIC} are ours: the regions pass into each other without a "
        "gap.",
        f"Along the bulk, left and right singular vectors coincide: the median cosine is "
        f"{cosines['bulk']:.3f}, against {cosines['chaotic']:.3f} in the chaotic and "
        f"{cosines['stable']:.3f} in the stable region. What the bulk carries, it does not turn.",
        f"Within {TIGHT} of 1 lie {n[PLAIN]['core']} singular values after training on the digits, "
        f"{n[SEED]['core']} from another initialisation, {n[LABELS]['core']} with shuffled labels, "
        f"and {n[NOISE]['core']} with white noise in place of the images.",
        f"The {k} directions nearest to 1 overlap with those after training on shuffled labels "
        f"by {row[LABELS]:.2f}, from another initialisation by {row[SEED]:.2f}, on white noise by "
        f"{row[NOISE]:.2f}; random subspaces of that size by {row['random']:.2f}. The {stable_k} "
        f"stable directions: {stable[LABELS]:.2f}, {stable[SEED]:.2f}, {stable[NOISE]:.2f}, random "
        f"{stable['random']:.2f}. The {chaotic_k} chaotic ones: {chaotic[LABELS]:.2f}, "
        f"{chaotic[SEED]:.2f}, {chaotic[NOISE]:.2f}, random {chaotic['random']:.2f}.",
        *_against_the_paper(findings),
    ]


def _against_the_paper(findings: Findings) -> list[str]:
    plain = findings.outcomes[0]
    by_name = {o.name: o for o in findings.outcomes}
    return [
        "The same: data, split, network (GELU), initial distributions, batches in a fixed order, "
        "momentum 0.9, cosine schedule, uniform white noise, permuted labels. The random numbers "
        "are others, so values agree in kind and size, not in digits.",
        "Read off the published figure, the spectra start a little above 20, with shuffled labels "
        f"near 9, with white noise near 28; ours at {plain.sigma[0]:.1f}, "
        f"{by_name[LABELS].sigma[0]:.1f} and {by_name[NOISE].sigma[0]:.1f}.",
        "Our overlap is the mean squared cosine of the principal angles between subspaces of equal "
        "size.",
        "J is computed in float32, column by column; on 64 columns it differs from float64 by "
        f"{number(findings.rounding, 2)} of its norm.",
    ]
