"""Methods by name: the package's own, and those that a user or another package registers.

The package's own stand as "module:Class", so that a name can be checked without importing torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from capacity.base.checks import one_of


class Registry:
    """The methods of one kind.

    Args:
        argument: Where a name is given, for messages.
        group: Entry-point group of other packages' methods: name = "module:Class".
        built_in: The package's own, name to "module:Class".
    """

    def __init__(self, argument: str, group: str, built_in: dict[str, str]) -> None:
        self._argument, self._group, self.built_in = argument, group, built_in
        self.own: dict[str, Any] = {}
        """Registered in this process."""

    def register(self, name: str, method: Any) -> None:
        """Make a method of one's own known. The same name again takes the place of the first.

        Args:
            name: Its name in recipes.
            method: The class, or "module:Class".

        Raises:
            ValueError: If the name is the package's.
        """
        if not isinstance(name, str) or not name:
            raise ValueError(f"name = {name!r} is none; give the method a name, as 'mine'")
        if name in self.built_in:
            raise ValueError(f"name = {name!r} is the package's own; give the method another one")
        self.own[name] = method

    def names(self) -> list[str]:
        """List every name that is known, the package's first."""
        return list(dict.fromkeys([*self.built_in, *self.own, *self._installed]))

    @cached_property
    def _installed(self) -> dict[str, str]:
        """Those of installed packages: asking them takes too long for every step."""
        return {entry.name: entry.value for entry in entry_points(group=self._group)}

    def load(self, name: str) -> Any:
        """Look a method up.

        Args:
            name: Its name.

        Returns:
            The class, or whatever was registered. An unknown name is a ValueError.
        """
        method = self.built_in.get(name) or self.own.get(name)
        if method is None:
            one_of(self._argument, name, self.names())
            method = self._installed[name]
        if isinstance(method, str):
            module, _, attribute = method.partition(":")
            method = getattr(import_module(module), attribute)
        return method


def register_installed(group: str, register: Callable[[Any], object]) -> None:
    """Register what installed packages have in an entry-point group: name = "module:THING".

    What cannot be loaded or registered is left out with a warning that names it: a package that is
    broken must not take every run along.

    Args:
        group: The group.
        register: Takes each of the objects.
    """
    for entry in entry_points(group=group):
        try:
            register(entry.load())
        except Exception as error:
            warnings.warn(
                f"entry point {entry.name} = {entry.value!r} of the group {group} is left out: "
                f"{type(error).__name__}: {error}",
                stacklevel=2,
            )


def registry_of(room: str) -> Registry:
    """Find the registry of a room above, which an import could not name.

    Args:
        room: The package, as "capacity.optimizers".

    Returns:
        Its `REGISTRY`.
    """
    registry: Registry = import_module(room).REGISTRY
    return registry
