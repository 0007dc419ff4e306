"""YAML of strangers: plain data within bounds, or one line that says where it is not.

Bounds are checked on the stream of events, before anything is built: an alias costs what it stands
for, and depth ends the reading at once.
"""

from __future__ import annotations

import re
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

LARGEST = 64 * 1024
"""Bytes of a file; the largest bundled recipe has less than 2 KiB."""
_DEEPEST = 32
_NODES = 10_000
_WHOLE = 2**63
_OCTAL = re.compile(r"[-+]?0[0-7_]+")
_SEED = re.compile(r"^seed: (0|[1-9][0-9]{0,17})$", re.MULTILINE)


class _Strict(yaml.SafeLoader):
    """Refuses a key that is given twice, and numbers that are none."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise ValueError(
                    f"line {line}: {_short(key.value)} is given twice, first on line "
                    f"{lines[name]}; give it once"
                )
            lines[name] = line
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = node.value
        if ":" in text or _OCTAL.fullmatch(text):
            raise _of_another_base(node)
        try:
            value = super().construct_yaml_int(node) if len(text) <= 80 else _WHOLE
        except ValueError:  # as 0x_
            value = _WHOLE
        if not -_WHOLE <= value < _WHOLE:
            raise ValueError(
                f"line {node.start_mark.line + 1}: {_short(text)} is no whole number of 64 bits; "
                "give one of at most 18 digits"
            )
        return value

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        if ":" in node.value:
            raise _of_another_base(node)
        return float(super().construct_yaml_float(node))

    def construct_text(self, node: yaml.ScalarNode) -> str:
        return str(node.value)


_Strict.add_constructor("tag:yaml.org,2002:int", _Strict.construct_yaml_int)
_Strict.add_constructor("tag:yaml.org,2002:float", _Strict.construct_yaml_float)
# A recipe has no dates, and what looks like one may be none.
_Strict.add_constructor("tag:yaml.org,2002:timestamp", _Strict.construct_text)


def read_yaml(path: Path) -> Any:
    """Read a file.

    Args:
        path: The file, UTF-8.

    Returns:
        Plain data.

    Raises:
        ValueError: If it cannot be read, is no YAML, or leaves the bounds.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise ValueError(f"not readable: {error.strerror}") from None
    return as_yaml(content)


def as_yaml(content: bytes) -> Any:
    """Understand what a file holds.

    Args:
        content: Its bytes, UTF-8; of a longer file than is accepted, as many as show that.

    Returns:
        Plain data.

    Raises:
        ValueError: If it is no YAML, or leaves the bounds.
    """
    if len(content) > LARGEST:
        raise ValueError(f"has more than {LARGEST // 1024} KiB; a recipe has a few lines")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not readable as YAML: {error}") from None
    return _parse_one_of_many(text)


def _parse_one_of_many(text: str) -> Any:
    """Read YAML; the runs of a sweep differ by their seeds, and the rest is parsed only twice."""
    # Two texts that differ in the line `seed: N`, and give the same apart from their N, show that
    # the line is the field, and not a part of some text.
    lines = list(_SEED.finditer(text))
    if len(lines) != 1:
        return parse_yaml(text)
    seed, (start, end) = int(lines[0][1]), lines[0].span()
    known = _parsed(text[:start], text[end:])
    if seed in known:
        return deepcopy(known[seed])
    if len(known) < 2:
        known[seed] = parse_yaml(text)
        return deepcopy(known[seed])
    one, other = known.items()
    if all(isinstance(fields, dict) for fields in known.values()) and (
        one[1] == other[1] | {"seed": one[0]} and other[1] == one[1] | {"seed": other[0]}
    ):
        return deepcopy(one[1]) | {"seed": seed}
    return parse_yaml(text)


@lru_cache(maxsize=64)
def _parsed(_before: str, _after: str) -> dict[int, Any]:
    """Remember what texts with these parts around their seeds hold, by seed."""
    return {}


def parse_yaml(text: str) -> Any:
    """Read YAML.

    Args:
        text: What a file holds, or the right side of an override.

    Returns:
        Plain data.

    Raises:
        ValueError: If it is no YAML, or leaves the bounds.
    """
    try:
        _check_bounds(text)
        return yaml.load(text, _Strict)
    except yaml.YAMLError as error:
        raise ValueError(f"not readable as YAML: {' '.join(str(error).split())}") from None


def _check_bounds(text: str) -> None:
    """Walk through the events; `sizes` counts the nodes that every open collection stands for."""
    known: dict[str, int] = {}
    sizes, anchors = [0], [""]
    for event in yaml.parse(text, yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if (tag := getattr(event, "tag", None)) is not None:
            tag = tag.replace("tag:yaml.org,2002:", "!!")
            raise ValueError(
                f"not readable as YAML: line {line}: tag {_short(tag)}; give plain values"
            )
        if isinstance(event, yaml.CollectionStartEvent):
            sizes.append(1)
            anchors.append(event.anchor or "")
            if len(sizes) > _DEEPEST:
                raise ValueError(f"line {line}: more than {_DEEPEST} levels; a recipe has four")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            size, anchor = sizes.pop(), anchors.pop()
        elif isinstance(event, yaml.ScalarEvent):
            size, anchor = 1, event.anchor or ""
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in anchors:
                raise ValueError(f"line {line}: *{event.anchor} stands inside of itself")
            size, anchor = known.get(str(event.anchor), 1), ""
        else:
            continue
        if anchor:
            known[anchor] = size
        sizes[-1] += size
        if sum(sizes) > _NODES:
            raise ValueError(
                f"line {line}: more than {_NODES:,} entries, aliases counted as what they stand "
                "for; write fewer"
            )


def _of_another_base(node: yaml.ScalarNode) -> ValueError:
    """Refuse what YAML reads in base 8 (010 is 8) or 60 (1:30 is 90), and people in base 10."""
    return ValueError(
        f"line {node.start_mark.line + 1}: {_short(node.value)} is a number of base 8 or 60 in "
        "YAML; write it in decimal digits without a leading zero, or put text in quotes"
    )


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:20]}... ({len(text)} characters)"
