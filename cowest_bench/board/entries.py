"""The table ``entries``: scores, gains over the single models, ranks and ties.

An entry's checkpoints are its runs on the same data; its row is about the newest. Columns that need a
system that has not been run are None.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from cowest_bench.analysis import ALPHA, POOLED, contrasts, resampling, stats
from cowest_bench.analysis.contrasts import Items
from cowest_bench.analysis.stats import Floats
from cowest_bench.board.gates import histories
from cowest_bench.config import ROLES
from cowest_bench.store.records import Entry
from cowest_bench.store.rows import Measured, gain_columns, singles_of, strong_single
from cowest_bench.store.schema import MIN_COVERAGE
from cowest_bench.store.selection import ANSWERING
from cowest_bench.store.suites import shown
from cowest_bench.store.tables import TableRow

MOST_GROUPS = 5_000  # clusters that ranks resample; more are joined at random into this many


def entry_rows(members: Sequence[Measured]) -> list[TableRow]:
    """The table ``entries`` of one suite.

    One row for each entry and domain; and one for all domains together (``POOLED``, even if there is
    only one), every sample counting the same, for each entry that has a run in every domain.
    """
    current: dict[str, dict[Entry, Measured]] = defaultdict(dict)
    for history in histories(members):
        current[history[-1].place.domain][Entry.of(history[-1].run)] = history[-1]
    entries = sorted({entry for known in current.values() for entry in known}, key=repr)
    several_formats = len({entry.format for entry in entries if entry.format}) > 1
    domains = sorted(current)
    complete: list[TableRow] = []
    for name, wanted in [*((domain, [domain]) for domain in domains), (POOLED, domains)]:
        parts = {
            entry: [current[domain][entry] for domain in wanted]
            for entry in entries
            if all(entry in current[domain] for domain in wanted)
        }
        found = {
            entry: {
                "suite": members[0].place.suite,
                "domain": name,
                "label": label(entry, with_format=several_formats),
                **_entry_row(entry, runs, members),
            }
            for entry, runs in parts.items()
        }
        _adjust([*found.values()])
        _rank(found, parts)
        complete += found.values()
    return complete


def label(entry: Entry, *, with_format: bool) -> str:
    """``SYSTEM: weak-64 + strong (shuffled)``; for a single model, its name alone."""
    models = " + ".join(name for name in (entry.weak, entry.strong) if name)
    text = models if entry.system in ROLES else f"{entry.system}: {models}"
    notes = [entry.format if with_format else None, entry.control]
    return shown(" ".join([text, *(f"({note})" for note in notes if note)]))


def _entry_row(entry: Entry, parts: Sequence[Measured], members: Sequence[Measured]) -> TableRow:
    """The score, cost and gain of an entry in one or several domains."""
    pairs = contrasts.pool([contrasts.pair(each.items, each.items) for each in parts])
    scores = pairs.ours[pairs.scored]
    estimate = stats.mean_interval(scores, pairs.clusters[pairs.scored])
    rows = [each.row for each in parts]
    return {
        **{key: value and shown(value) for key, value in asdict(entry).items()},
        "entry": entry.id,
        "domains": len(parts),
        "n": len(scores),
        "n_total": len(pairs.keys),
        "coverage": len(scores) / len(pairs.keys),
        "score": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "usd_per_1k": _mean(rows, "usd_per_1k", "n_scored"),
        "seconds_per_1k": _mean(rows, "seconds_per_1k", "n_scored"),
        **{
            f"{role}_{what}_per_sample": _mean(rows, f"{role}_{what}", None)
            for role in ANSWERING
            for what in ("calls", "tokens")
        },
        "created": max(each.run.created for each in parts),
        **_gains(parts, members),
    }


def _mean(rows: Sequence[TableRow], name: str, weight: str | None) -> float | None:
    """Mean of a column over runs, per answer; without ``weight``, the column holds sums. None if unknown."""
    values = [row[name] for row in rows]
    if any(value is None or np.isnan(value) for value in values):
        return None
    totals = [row[weight] * row[name] if weight else row[name] for row in rows]
    return float(sum(totals) / sum(row[weight or "n_total"] for row in rows))


def _gains(parts: Sequence[Measured], members: Sequence[Measured]) -> TableRow:
    """The columns ``GAIN`` over all domains, and which systems have not been run in all of them."""
    if not parts[0].run.compared_with:
        return {}
    found = [singles_of(each, members) for each in parts]
    names = parts[0].run.compared_with
    singles = {name: _items([each.get(name) for each in found]) for name in names}
    missing = [f"{shown(name)} alone" for name, items in singles.items() if items is None]
    strong = next(filter(None, map(strong_single, found)), None)
    columns = gain_columns([each.items for each in parts], singles, strong)
    return {"missing": ", ".join(missing) or None, **columns}


def _items(single: Sequence[Measured | None]) -> list[Items] | None:
    """The samples in every domain; None if one is missing."""
    items = [each.items for each in single if each]
    return items if len(items) == len(single) else None


def _adjust(rows: Sequence[TableRow]) -> None:
    """Adjust p by Holm over the entries of one suite and domain; say whether it is below the level."""
    tested = [row for row in rows if "over_best_p" in row]
    adjusted = stats.holm([row["over_best_p"] for row in tested])
    for row, p in zip(tested, adjusted, strict=True):
        row |= {"over_best_p_holm": float(p), "significant": bool(p < ALPHA)}


def _rank(rows: Mapping[Entry, TableRow], parts: Mapping[Entry, Sequence[Measured]]) -> None:
    """Add the interval of each entry's rank, and the ties.

    On the samples for which all entries have scores; controls, and entries with a coverage below
    ``MIN_COVERAGE``, are not ranked. In the order of best rank, then score, a new tie group begins with
    an entry whose ranks no longer overlap those of the group's first member.
    """
    ranked = [e for e, row in rows.items() if not e.control and row["coverage"] >= MIN_COVERAGE]
    if not ranked:
        return
    by_domain = [
        _common([parts[entry][i].items for entry in ranked]) for i in range(len(parts[ranked[0]]))
    ]
    scores = np.concatenate([table for table, _ in by_domain], axis=1)
    sizes = np.cumsum([0, *(codes.max(initial=-1) + 1 for _, codes in by_domain)])
    clusters = np.concatenate(
        [codes + start for (_, codes), start in zip(by_domain, sizes[:-1], strict=True)]
    )
    if not len(clusters):
        return
    ranks = resampling.rank_intervals(scores, _joined(clusters))
    found = [rows[entry] for entry in ranked]
    for row, rank in zip(found, ranks, strict=True):
        row |= {"rank_best": rank.best, "rank_worst": rank.worst}
    group, last = 0, 0
    for row in sorted(found, key=lambda row: (row["rank_best"], -row["score"])):
        if row["rank_best"] > last:
            group, last = group + 1, row["rank_worst"]
        row["tie_group"] = group


def _common(several: Sequence[Items]) -> tuple[Floats, NDArray[np.intp]]:
    """Scores of systems (rows) on the samples that all have scores for; and the samples' clusters."""
    keys = reduce(np.intersect1d, [each.keys[~np.isnan(each.scores)] for each in several])
    places = [np.searchsorted(each.keys, keys) for each in several]
    scores = np.stack([each.scores[rows] for each, rows in zip(several, places, strict=True)])
    return scores, np.unique(several[0].clusters[places[0]], return_inverse=True)[1]


def _joined(clusters: NDArray[np.intp]) -> NDArray[np.intp]:
    """At most ``MOST_GROUPS`` clusters, joined at random: still independent, and faster."""
    groups = int(clusters.max()) + 1
    if groups <= MOST_GROUPS:
        return clusters
    return (np.random.default_rng(0).permutation(groups) % MOST_GROUPS)[clusters]
