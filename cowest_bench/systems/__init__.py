"""The systems: one file each, found by name.

Importing this package loads no engine: the command line and the board read names, roles and colours.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from cowest_bench.errors import ConfigError, suggestion
from cowest_bench.systems.collab import COLLAB, COLLAB_TUNED
from cowest_bench.systems.single import STRONG, WEAK
from cowest_bench.systems.system import Lengths, System

__all__ = [
    "COLLAB",
    "COLLAB_TUNED",
    "STRONG",
    "WEAK",
    "Lengths",
    "System",
    "find_system",
    "system_names",
]

BUILT_IN = {system.name: system for system in (WEAK, STRONG, COLLAB, COLLAB_TUNED)}
GROUP = "cowest_bench.systems"


def system_names() -> tuple[str, ...]:
    """The names of all systems that are installed, the built-in ones first."""
    return (*BUILT_IN, *sorted(_plugins()))


@cache
def _plugins() -> dict[str, EntryPoint]:
    found = {point.name: point for point in entry_points(group=GROUP)}
    for name in found.keys() & BUILT_IN.keys():
        raise ConfigError(
            f"The package {found[name].value.partition(':')[0]} offers a system called {name}, which "
            "is built in; its entry point needs another name."
        )
    return found


@cache
def find_system(name: str) -> System:
    """The system of this name.

    Raises:
        ConfigError: If there is none, or the package that offers it cannot be loaded.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    if name not in _plugins():
        raise ConfigError(f"There is no system {name}; {suggestion(name, system_names())}")
    point = _plugins()[name]
    try:
        system = point.load()
    except Exception as error:  # the code of others
        raise ConfigError(f"The system {name} ({point.value}) cannot be loaded: {error}") from error
    if not isinstance(system, System) or system.name != name:
        raise ConfigError(
            f"The entry point {name} ({point.value}) must name an instance of "
            f"cowest_bench.systems.System whose name is {name}."
        )
    return system
