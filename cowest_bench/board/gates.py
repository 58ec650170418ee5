"""The tables ``gates`` and ``baselines``: checkpoints against the one before, and against baselines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cowest_bench.analysis import MARGIN, contrasts
from cowest_bench.analysis.contrasts import Pairs
from cowest_bench.errors import ComparisonError, CowestError
from cowest_bench.gate import baseline
from cowest_bench.gate.baseline import Baseline, ScoredRun
from cowest_bench.store import Run
from cowest_bench.store.records import Entry
from cowest_bench.store.rows import Measured
from cowest_bench.store.suites import Place, shown
from cowest_bench.store.tables import TableRow


def blessed_baselines(folder: Path, warn: Callable[[str], None]) -> list[Baseline]:
    """The readable baselines of a folder, in the order in which they were blessed."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(baseline.load(path))
        except ComparisonError:
            warn(f"The baseline {path.name} is not one of this version.")
    return sorted(found, key=lambda each: each.blessed)


def histories(members: Sequence[Measured]) -> list[list[Measured]]:
    """The checkpoints of every entry on the same data, oldest first."""
    found: dict[tuple[Entry, str], list[Measured]] = defaultdict(list)
    for each in sorted(members, key=lambda each: (each.run.created, each.run.run_id)):
        found[Entry.of(each.run), each.run.data].append(each)
    return list(found.values())


def gate_rows(
    members: Sequence[Measured], baselines: Sequence[Baseline], warn: Callable[[str], None]
) -> list[TableRow]:
    """The table ``gates`` of one suite.

    Compares every checkpoint with the one before it, and with the newest baseline of the same data and
    system.
    """
    blessed = {(run.data, run.system): (each.name, run) for each in baselines for run in each.runs}
    rows = []
    for history in histories(members):
        for before, each in zip([None, *history], history, strict=False):
            if before:
                pairs = contrasts.pair(each.items, before.items)
                rows += _gate(each.run, before.run.run_id, "previous", pairs)
            known = blessed.get((each.run.data, each.run.system))
            if known and (scored := _scored(each, warn)):
                pairs = contrasts.pair(scored.items, known[1].items)
                rows += _gate(each.run, known[0], "baseline", pairs)
    return rows


def _scored(each: Measured, warn: Callable[[str], None]) -> ScoredRun | None:
    try:
        return baseline.scored(each.stored.results, each.run)
    except CowestError as error:  # too many samples, or removed meanwhile
        warn(str(error))
        return None


def _gate(run: Run, against: str, kind: str, pairs: Pairs) -> list[TableRow]:
    if not pairs.scored.any():
        return []
    found = contrasts.contrast(pairs, margin=MARGIN)
    value, low, high = found.difference
    about = {"run_id": run.run_id, "against": against, "kind": kind, "n": found.n}
    return [about | {"difference": value, "low": low, "high": high, "verdict": str(found.verdict)}]


def baseline_rows(baselines: Sequence[Baseline], places: Mapping[str, Place]) -> list[TableRow]:
    """The table ``baselines``; data without runs have no suite."""
    return [
        _baseline_row(each, run, places.get(run.data)) for each in baselines for run in each.runs
    ]


def _baseline_row(each: Baseline, run: ScoredRun, place: Place | None) -> TableRow:
    known = [score for score in run.scores.values() if score is not None]
    names = {"domain": run.domain, "system": run.system, "weak": run.weak, "strong": run.strong}
    return {
        "name": shown(each.name),
        "blessed": each.blessed,
        "suite": place and place.suite,
        "run_id": run.run_id,
        "data": run.data,
        **{column: name and shown(name) for column, name in names.items()},
        "score": sum(known) / len(known) if known else None,
        "n": len(known),
    }
