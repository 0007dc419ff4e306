"""Where the time of a run went, for people who wait for it."""

from __future__ import annotations

from collections.abc import Mapping

BESIDE = " beside"


def shares(seconds: Mapping[str, float], total: float) -> str:
    """Write a table of the stages of a run, the longest first.

    Args:
        seconds: By stage, as status.json has them; what ends in ` beside` went on meanwhile.
        total: Of the command, s.

    Returns:
        A line each: seconds, share of the total, stage.
    """
    own = {stage: s for stage, s in seconds.items() if not stage.endswith(BESIDE)}
    # A run that was taken up has spent some of them in an earlier command.
    own["start, data, last page"] = max(total - sum(own.values()), 0.0)
    whole = max(sum(own.values()), 1e-9)
    longest = sorted(own.items(), key=lambda item: -item[1])
    beside = [item for item in seconds.items() if item[0].endswith(BESIDE)]
    return "\n".join([
        *(f"{s:8.1f} s {s / whole:6.0%}  {stage}" for stage, s in longest if s >= 0.05),
        *(f"{s:8.1f} s         {stage}" for stage, s in beside),
        f"{whole:8.1f} s   100%  in all",
    ])
