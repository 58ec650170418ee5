"""The table ``gains``: systems against the single models inside them (``analysis.gains``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import cast

from cowest_bench.analysis.contrasts import Contrast, Items
from cowest_bench.analysis.gains import gain
from cowest_bench.config import Role
from cowest_bench.store import selection
from cowest_bench.store.measured import Measured, oldest_first
from cowest_bench.store.records import Run
from cowest_bench.store.schema import ALPHA, TOLERANCE
from cowest_bench.store.tables import TableRow


def gain_rows(members: Sequence[Measured]) -> Iterator[TableRow]:
    """The table ``gains``, from runs of the same data set."""
    for each in members:
        if each.run.compared_with:
            singles = singles_of(each, members)
            found = {name: [one.items] if one else None for name, one in singles.items()}
            runs = {f"{role_of(e.run)}_run": e.run.run_id for e in singles.values() if e}
            strong = strong_single(singles)
            yield {"run_id": each.run.run_id, **runs, **gain_columns([each.items], found, strong)}


def singles_of(each: Measured, members: Sequence[Measured]) -> dict[str, Measured | None]:
    """The runs in which a run's models answer the same samples alone, by system; None if not run."""
    known = {other.run.run_id: other for other in members if other.run.data == each.run.data}
    runs = oldest_first(other.run for other in known.values())
    return {
        name: known[found.run_id] if (found := single_run(each.run, name, runs)) else None
        for name in each.run.compared_with
    }


def single_run(run: Run, single: str, runs: Sequence[Run]) -> Run | None:
    """The run of a single system that has a run's model (``selection.alone``)."""
    return selection.alone(run, cast(Role, single), runs)


def role_of(run: Run) -> Role:
    """The role of the only model of a single system's run."""
    (role,) = run.models
    return role


def strong_single(singles: Mapping[str, Measured | None]) -> str | None:
    """Name of the system in which the strong model answers alone."""
    return next((n for n, each in singles.items() if each and role_of(each.run) == "strong"), None)


def gain_columns(
    ours: Sequence[Items], singles: Mapping[str, Sequence[Items] | None], strong: str | None
) -> TableRow:
    """The columns ``GAIN`` of a system over one or several data sets.

    Args:
        ours: Its items, one for each data set.
        singles: Those of the systems it is compared with, in the same order; None if not run.
        strong: The one of these in which the strong model answers.
    """
    over = partial(gain, ours, margin=TOLERANCE, alpha=ALPHA)
    known = {name: items for name, items in singles.items() if items is not None}
    best = over(known) if len(known) == len(singles) else None
    row: TableRow = {}
    if best:
        row |= {"best_single": best.best, **_difference("best", best.contrast)}
    if strong in known:
        # The weak model's run may be missing, or share no scored sample.
        by_strong = best or over({strong: known[strong]})
        if by_strong:
            contrast = by_strong.over[strong]
            counts = ("helped", "hurt", "both_right", "both_wrong", "not_scored")
            row |= {name: getattr(contrast, name) for name in counts}
            row |= _difference("strong", contrast)
    return row


def _difference(over: str, found: Contrast) -> TableRow:
    value, low, high = found.difference
    return {
        f"over_{over}": value,
        f"over_{over}_low": low,
        f"over_{over}_high": high,
        f"over_{over}_p": found.p,
        f"over_{over}_verdict": str(found.verdict),
        f"over_{over}_detectable": found.detectable,
        f"over_{over}_needed": found.needed,
    }
