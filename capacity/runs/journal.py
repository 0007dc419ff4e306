"""What a run has finished so far, kept so that it can go on after a kill as if nothing had been.

Every stage that was measured is a record: plain JSON, and tensors beside it where later stages need
them. The JSON file is written last, whole or not at all; it carries its own digest and names its
tensors by theirs, so a record is there in full, as it was written, or not at all. What a stage
hands on is what can be read back, whether it was measured just now or before the kill; the two
cannot differ.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capacity.base.files import as_object, read_bytes, seal, unseal, write_all
from capacity.recipe.config import Recipe

if TYPE_CHECKING:  # seconds to import
    import torch
    from torch import Tensor

_SCHEMA = "capacity/journal"
_VERSION = 3
"""Raised with what any record holds: one of another version is refused, not filled up."""

BEGIN = "begin"
"""Where a run notes how it computes, before its first stage; it counts as none."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One stage that is done.

    Attributes:
        record: What it measured, plain JSON types.
        tensors: What later stages need of it, on the CPU.
    """

    record: Any
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def part(self, prefix: str, device: torch.device) -> dict[str, Tensor]:
        """Take the tensors whose names begin with a prefix and a dot.

        Args:
            prefix: The prefix.
            device: Where they are wanted.

        Returns:
            The tensors by the rest of their names.
        """
        start = f"{prefix}."
        return {
            name.removeprefix(start): tensor.to(device)
            for name, tensor in self.tensors.items()
            if name.startswith(start)
        }


class Journal:
    """The records of one run, by the names of their stages.

    A record that is damaged, or of another run, is a ValueError when it is read.

    Args:
        folder: Where they lie.
        recipe: The recipe of the run; a record of another one is refused.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self._folder = folder
        self._recipe = hashlib.sha256(recipe.to_yaml().encode()).hexdigest()
        self._begun, self._lost = folder.is_dir(), False

    def __contains__(self, stage: str) -> bool:
        return self._path(stage).is_file()

    def __len__(self) -> int:
        return len([stage for stage in self._stages() if stage != BEGIN])

    def check(self) -> None:
        """Read every record, so that a damaged one is a ValueError before any work."""
        for stage in self._stages():
            self.get(stage)

    def record(self, stage: str) -> Any:
        """Read a stage's record without its tensors.

        Args:
            stage: Its name.

        Returns:
            The record; None where the stage is not done.
        """
        return None if stage not in self else self._read(stage)["record"]

    def get(self, stage: str) -> Entry | None:
        """Read a stage that was done before.

        Args:
            stage: Its name.

        Returns:
            The entry; None where the stage is not done.

        Raises:
            ValueError: If a file of it is damaged, or of another run.
        """
        if stage not in self:
            return None
        content = self._read(stage)
        digest = content.get("tensors")
        if digest is None:
            return Entry(record=content["record"])
        path = self._tensors(stage, digest)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ValueError(
                _damaged(path, error.strerror or str(error), self._path(stage))
            ) from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError(
                _damaged(path, "its digest is not the recorded one", self._path(stage))
            )
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            # Copies: what is read stands wherever the file has it, and arithmetic on tensors that
            # are not aligned may round otherwise.
            tensors = {name: tensor.clone() for name, tensor in load(data).items()}
        except SafetensorError as error:
            raise ValueError(_damaged(path, str(error), self._path(stage))) from None
        return Entry(record=content["record"], tensors=tensors)

    def put(self, stage: str, record: object, tensors: dict[str, Tensor] | None = None) -> Entry:
        """Write down that a stage is done.

        Args:
            stage: Its name.
            record: Plain types without NaN or infinity.
            tensors: What later stages need of it.

        Returns:
            The entry as `get` would give it.
        """
        # Clones: safetensors refuses tensors that share memory.
        plain = {
            name: tensor.detach().to("cpu", copy=True).contiguous()
            for name, tensor in (tensors or {}).items()
        }
        digest, files = None, {}
        if plain:
            from safetensors.torch import save

            data = save(plain)
            digest = hashlib.sha256(data).hexdigest()
            files[self._tensors(stage, digest)] = data
        content = {
            "schema": _SCHEMA,
            "schema_version": _VERSION,
            "recipe": self._recipe,
            "stage": stage,
            "tensors": digest,
            "record": record,
        }
        written = seal(content)
        # Records that lack those before them are no account of a run: after a second blow to a
        # directory that was removed, it begins anew.
        self._lost = self._lost or (self._begun and not self._folder.is_dir())
        if not self._lost:
            write_all({**files, self._path(stage): written})
            self._begun = True
        self._forget_tensors(stage, digest)
        return Entry(record=json.loads(written)["record"], tensors=plain)

    def drop(self, stage: str) -> None:
        """Forget a stage that nothing needs any more.

        Args:
            stage: Its name.
        """
        self._path(stage).unlink(missing_ok=True)
        self._forget_tensors(stage, None)

    def clear(self) -> None:
        """Forget everything: the run is over, and its other files hold all of it."""
        if self._folder.is_dir():
            for path in sorted(self._folder.iterdir()):
                path.unlink(missing_ok=True)
            self._folder.rmdir()

    def _stages(self) -> list[str]:
        return sorted(p.stem for p in self._folder.glob("*.json") if not p.name.startswith("."))

    def _path(self, stage: str) -> Path:
        return self._folder / f"{stage}.json"

    def _tensors(self, stage: str, digest: str) -> Path:
        return self._folder / f"{stage}.{digest[:16]}.safetensors"

    def _forget_tensors(self, stage: str, kept: str | None) -> None:
        keep = None if kept is None else self._tensors(stage, kept)
        for path in self._folder.glob(f"{stage}.*.safetensors"):
            if path != keep:
                path.unlink(missing_ok=True)

    def _read(self, stage: str) -> dict[str, Any]:
        path = self._path(stage)
        remedy = "delete it, and its stage is done anew"
        data = read_bytes(path, remedy) or b""
        content = as_object(path, data, remedy)
        if content.get("schema") != _SCHEMA or "record" not in content:
            raise ValueError(_damaged(path, "it is no record of a stage", path))
        if content.get("schema_version") != _VERSION:
            raise ValueError(
                f"{path}: written by another version of capacity (schema_version = "
                f"{content.get('schema_version')!r}, here {_VERSION}); go on with that one, or "
                "delete the folder to begin anew"
            )
        if content.get("recipe") != self._recipe or content.get("stage") != stage:
            raise ValueError(
                f"{path}: belongs to a run of another recipe; delete it, and its stage is done anew"
            )
        try:
            unseal(data)
        except ValueError as error:
            raise ValueError(_damaged(path, str(error), path)) from None
        return content


def _damaged(path: Path, why: str, record: Path) -> str:
    return (
        f"{path}: damaged ({' '.join(why.split())}); delete {record.name}, and its stage is done "
        "anew"
    )
