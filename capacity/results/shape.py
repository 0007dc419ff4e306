"""What a `result.json` must look like for its readers; a part that does not is named by its place.

Fields that earlier versions did not write may be missing; those of other versions are let alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from capacity.records.estimate import Status

Shape = Callable[[Any, str], None]
"""Takes a value and its place in the file, and raises a ValueError if it is of another kind."""


def _plain(kind: type | tuple[type, ...], words: str) -> Shape:
    def check(value: Any, place: str) -> None:
        # To Python a truth value is a number.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{place} is not {words}")

    return check


_text = _plain(str, "text")
_flag = _plain(bool, "true or false")
_whole = _plain(int, "a whole number")
_number = _plain((int, float), "a number")
_object = _plain(dict, "an object")
_list = _plain(list, "a list")


def _maybe(shape: Shape) -> Shape:
    def check(value: Any, place: str) -> None:
        if value is not None:
            shape(value, place)

    return check


def _each(shape: Shape) -> Shape:
    def check(value: Any, place: str) -> None:
        _list(value, place)
        for k, one in enumerate(value):
            shape(one, f"{place}[{k}]")

    return check


def _named(shape: Shape) -> Shape:
    def check(value: Any, place: str) -> None:
        _object(value, place)
        for name, one in value.items():
            shape(one, f"{place}.{name}")

    return check


def _record(required: Mapping[str, Shape], optional: Mapping[str, Shape] | None = None) -> Shape:
    def check(value: Any, place: str) -> None:
        _object(value, place)
        for name in required:
            if name not in value:
                raise ValueError(f"{place}.{name} is missing".removeprefix("."))
        for name, shape in {**required, **(optional or {})}.items():
            if name in value:
                shape(value[name], f"{place}.{name}".removeprefix("."))

    return check


def _one_of(*words: str) -> Shape:
    def check(value: Any, place: str) -> None:
        if value not in words:
            raise ValueError(f"{place} is not one of {', '.join(words)}")

    return check


def _pair(value: Any, place: str) -> None:
    _each(_number)(value, place)
    if len(value) != 2:
        raise ValueError(f"{place} is not a pair of numbers")


_FIELDS: dict[str, Shape] = {
    "value": _maybe(_number),
    "stderr": _maybe(_number),
    "status": _one_of(*Status),
    "interval": _maybe(_pair),
    "level": _number,
    "n": _maybe(_whole),
    "cost": _number,
    "note": _text,
}


def _estimate(value: Any, place: str) -> None:
    _record({name: _FIELDS[name] for name in ("value", "status", "interval")}, _FIELDS)(
        value, place
    )
    for name in value:
        if name not in _FIELDS:
            raise ValueError(f"{place}.{name} is no field of an estimate")


_E = _maybe(_estimate)


def _estimates(*names: str) -> dict[str, Shape]:
    return dict.fromkeys(names, _E)


_PAIR = _record(_estimates("accuracy_drop", "loss_increase"))
_LEARNED = _record(_estimates("accuracy", "loss"))
_TABLE = _maybe(_each(_each(_maybe(_number))))
_SCORES = _record({"mean": _TABLE}, {"stderr": _TABLE, "replicas": _maybe(_each(_TABLE))})
_LOST = _record({}, dict.fromkeys(("last", "max"), _each(_each(_E))))
_BY_EPS = _each(_record({"eps": _number, **_estimates("nats", "directions")}))
_FORM = _record(
    {
        "value": _E,
        "threshold": _number,
        "fires_above": _flag,
        "margin": _maybe(_number),
        "fires": _flag,
        "verdict": _text,
        "note": _text,
    },
    {"form": _text},
)
_CLASSES = _record({
    "edges": _each(_number),
    "counts": _each(_number),
    "stderr": _maybe(_each(_maybe(_number))),
    "resolved": _each(_flag),
})


def _density(value: Any, place: str) -> None:
    _CLASSES(value, place)
    for name in ("counts", "stderr", "resolved"):
        if value[name] is not None and len(value[name]) != len(value["edges"]) + 1:
            raise ValueError(f"{place}.{name} is not a list of one more than the edges")


_SPECTRUM: dict[str, Shape] = {
    **dict.fromkeys(
        ("singular_values", "smallest"),
        _each(_record({"value": _number, "residual": _number, "resolved": _flag})),
    ),
    "top_resolved": _whole,
    "parts": _record({
        **_estimates("chaotic", "bulk", "stable"),
        "chaotic_above": _number,
        "stable_below": _number,
    }),
    "counts": _each(_record({"side": _text, "threshold": _number, "count": _E})),
    "density": _density,
    "moved_above": _number,
    **_estimates("moved", "alignment", "effective_rank", "stable_rank", "frobenius_sq"),
    **_estimates("deviation_sq", "sweeps_missing"),
    "dimension": _number,
    "exact": _flag,
    "method": _text,
    **dict.fromkeys(("sweeps", "products_forward", "products_adjoint"), _number),
}
_CAPACITY = _record(
    {
        **_estimates("nats", "directions"),
        "by_eps": _BY_EPS,
        "parameters": _whole,
        "removed": _whole,
        "removed_complete": _flag,
        "tolerance": _number,
        "displacement": _number,
        "curvature_threshold": _number,
    },
    {
        "removed_range": _maybe(_pair),
        **_estimates("soft_removed", "subspace_error"),
        "convergence": _maybe(
            _record(
                {**_estimates("gradient", "remaining"), "note": _text},
                {"converged": _maybe(_flag)},
            )
        ),
        "sensitivity": _each(
            _record(
                {
                    "tolerance": _number,
                    "removed": _whole,
                    "removed_complete": _flag,
                    "by_eps": _BY_EPS,
                },
                {"curvature_threshold": _number, "soft_removed": _E},
            )
        ),
    },
)
_FORMS = ("capacity", "transport_cost", "directional")
_VERDICTS = _record({
    "verdict": _text,
    "decides": _one_of(*_FORMS),
    "why": _text,
    **dict.fromkeys(_FORMS, _FORM),
    "warnings": _each(_text),
    "source": _text,
})
_CLOSURE = _record({
    "threshold": _number,
    "fires_above": _flag,
    "points": _each(_record({"time": _number, **_estimates("capacity", "need")})),
    "time": _E,
    "closes": _maybe(_flag),
})


def _closures(value: Any, place: str) -> None:
    _object(value, place)
    if value:
        _record(dict.fromkeys(_FORMS, _CLOSURE))(value, place)


_STRATEGY = _record({
    "name": _text,
    "old": _each(_record({"task": _whole, "forecast": _PAIR})),
    "new": _LEARNED,
    **_estimates("average_accuracy", "average_loss", "cost_ratio"),
})
_TRANSITION = _record(
    {
        "task": _whole,
        "old": _each(
            _record(
                {"task": _whole, **dict.fromkeys(("forecast", "measured"), _maybe(_PAIR))},
                {"controls": _maybe(_named(_PAIR))},
            )
        ),
        "new": _record(dict.fromkeys(("forecast", "measured"), _maybe(_LEARNED))),
    },
    {
        "cost_ratio": _E,
        "controls": _maybe(_named(_E)),
        "by_strategy": _each(_STRATEGY),
        "note": _text,
        "capacity": _maybe(_CAPACITY),
        "dimension": _maybe(
            _record(
                _estimates("stable_rank", "intrinsic"),
                {**_estimates("top_curvature", "negative_share"), "no_demand": _flag},
            )
        ),
        "literal": _maybe(
            _record(
                {"fires": _flag, "margin": _maybe(_number), "verdict": _text},
                {"stderr": _maybe(_number), "note": _text},
            )
        ),
        "verdicts": _maybe(_VERDICTS),
        "closures": _maybe(_closures),
        "plasticity": _maybe(_named(_E)),
    },
)
_THERMO = _record(
    {
        "learning_time": _number,
        "path_invariant": _record({"holds": _flag, "smallest_ratio": _maybe(_number)}),
    },
    {
        **_estimates("inefficiency_path", "loss_drop_ratio", "action", "loss_drop"),
        **_estimates("displacement_sq", "length_ratio"),
    },
)
_VOLUMES = _estimates("log_volume", "log_volume_total")
_PHASE = _record({}, {"transport": _maybe(_record(_SPECTRUM, _VOLUMES)), "thermo": _maybe(_THERMO)})
_TASK = _record(
    {
        "name": _text,
        "status": _one_of("learned", "diverged", "interrupted", "not_started"),
        **dict.fromkeys(("train_samples", "test_samples", "steps"), _whole),
    },
    {
        "classes": _maybe(_list),
        "outputs": _maybe(_list),
        "scored_on": _text,
        **dict.fromkeys(("held_out", "overlap"), _whole),
        "diverged": _maybe(_record({"step": _whole, "replicas": _each(_whole)})),
    },
)
_QUALITY = _record(_estimates("spearman", "r2", "mean_error"))
_ALWAYS: dict[str, Shape] = {
    "name": _text,
    "status": _one_of("finished", "diverged", "interrupted", "failed", "running"),
    "seed": _whole,
    "replicas": _whole,
    "model": _record({"description": _text, "parameters": _whole}, {"outputs": _whole}),
    "tasks": _each(_TASK),
    "accuracy": _maybe(_SCORES),
    "loss": _maybe(_SCORES),
    "forgetting": _maybe(_record({}, {"accuracy": _maybe(_LOST), "loss": _maybe(_LOST)})),
    "final": _maybe(_named(_E)),
    "transitions": _each(_TRANSITION),
    "phases": _each(_maybe(_PHASE)),
    "scores": _maybe(
        _record(
            {"pairs": _whole},
            {
                **dict.fromkeys(("accuracy_drop", "loss_increase"), _maybe(_QUALITY)),
                "controls": _maybe(_named(_PAIR)),
            },
        )
    ),
}
_RESULT = _record(
    _ALWAYS,
    {"recipe": _maybe(_object), "composed": _maybe(_record({"tasks": _whole, **_SPECTRUM}))},
)
_MEASURED = _maybe(_each(_maybe(_number)))
_ROW = _record(
    dict.fromkeys(("task", "epoch", "step"), _whole),
    {
        **dict.fromkeys(
            ("learning_time", "lr", "train_loss", "train_loss_stderr"), _maybe(_number)
        ),
        **dict.fromkeys((f"test_{kind}" for kind in ("accuracy", "loss")), _MEASURED),
        **dict.fromkeys((f"test_{kind}_stderr" for kind in ("accuracy", "loss")), _MEASURED),
    },
)


def check_row(row: Mapping[str, Any]) -> None:
    """Check what readers take as it is of a row of metrics.jsonl, as `check_shape` does.

    Args:
        row: The row.
    """
    _ROW(row, "")


def check_shape(result: Mapping[str, Any]) -> None:
    """Check every part of a result that its readers take as it is.

    A part that an earlier version did not write may be missing.

    Args:
        result: The content of result.json.

    Raises:
        ValueError: If a part is of another kind, missing, or about a task that there is not; the
            message begins with its place, as `transitions[0].old[1].task`.
    """
    _RESULT(result, "")
    count = len(result["tasks"])
    for kind in ("accuracy", "loss"):
        scores = result[kind] or {}
        _square(scores.get("mean"), count, f"{kind}.mean")
        for r, table in enumerate(scores.get("replicas") or []):
            _square(table, count, f"{kind}.replicas[{r}]")
        for way, table in ((result["forgetting"] or {}).get(kind) or {}).items():
            _square(table, count, f"forgetting.{kind}.{way}")
    if len(result["phases"]) < count:
        raise ValueError(f"phases is not a list of {count} or more, one for every task")
    for k, transition in enumerate(result["transitions"]):
        place, task = f"transitions[{k}]", transition["task"]
        if not 0 < task < count:
            raise ValueError(f"{place}.task is not one of the {count} tasks after the first")
        if len(transition["old"]) != task:
            raise ValueError(f"{place}.old is not a list of {task}, one for every earlier task")
        for j, old in enumerate(transition["old"]):
            if old["task"] != j:
                raise ValueError(f"{place}.old[{j}].task is not {j}")


def _square(table: list[list[Any]] | None, count: int, place: str) -> None:
    if table is None:
        return
    if len(table) != count or any(len(row) != count for row in table):
        raise ValueError(f"{place} is not a table of {count} by {count}, one entry per task")
