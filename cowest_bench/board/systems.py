"""The table ``systems``: what the leaderboard knows about each system, from its object."""

from __future__ import annotations

from collections.abc import Iterable

from cowest_bench.errors import ConfigError
from cowest_bench.store import Run
from cowest_bench.store.suites import shown
from cowest_bench.store.tables import TableRow
from cowest_bench.systems import find_system, system_names


def system_rows(runs: Iterable[Run]) -> list[TableRow]:
    """A row for each system of the runs: installed ones first, in their order, then the others."""
    by_name = {shown(run.system): run for run in runs}
    order = {name: place for place, name in enumerate(system_names())}
    names = sorted(by_name, key=lambda name: (order.get(name, len(order)), name))
    return [_system_row(by_name[name], position) for position, name in enumerate(names)]


def _system_row(run: Run, position: int) -> TableRow:
    row: TableRow = {
        "system": shown(run.system),
        "roles": [*run.models],
        "compared_with": [shown(name) for name in run.compared_with],
        "position": position,
    }
    try:
        system = find_system(run.system)
    except ConfigError:  # not installed here
        return row
    return row | {"tuned": system.tuned, "untuned": system.untuned, "color": system.color}
