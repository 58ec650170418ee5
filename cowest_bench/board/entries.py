"""The leaderboard's rows: scores, gains over the single models, ranks and ties of entries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from typing import Any

import numpy as np

from cowest_bench.analysis import contrasts, resampling, stats
from cowest_bench.analysis.contrasts import Contrast, Items
from cowest_bench.analysis.stats import Floats
from cowest_bench.board.snapshot import ALPHA, MIN_COVERAGE, POOLED
from cowest_bench.board.standings import (
    Alone,
    Entry,
    Measured,
    Row,
    contrast,
    histories,
    own,
    shown,
)

MOST_GROUPS = 5_000  # clusters that ranks resample; more are joined at random into so many


def entry_rows(members: Sequence[Measured], rows: Sequence[Row]) -> list[Row]:
    """The table ``entries`` of one suite, from its runs and their rows in the table ``runs``.

    One row for each entry and domain, from its current run; and one for all domains together
    (``POOLED``, also where there is only one), every question counting the same, for the entries that
    have a run in every domain.
    """
    current: dict[str, dict[Entry, Measured]] = defaultdict(dict)
    for history in histories(members):
        current[history[-1].domain][Entry.of(history[-1].run)] = history[-1]
    entries = sorted({entry for known in current.values() for entry in known}, key=repr)
    formats = {entry.format for entry in entries if entry.format}
    alone, by_id = Alone(members), {row["run_id"]: row for row in rows}
    domains = sorted(current)
    complete: list[Row] = []
    for name, wanted in [*((domain, [domain]) for domain in domains), (POOLED, domains)]:
        parts = {
            entry: [current[domain][entry] for domain in wanted]
            for entry in entries
            if all(entry in current[domain] for domain in wanted)
        }
        found = {
            entry: {
                "suite": members[0].suite,
                "domain": name,
                "label": entry.label(with_format=len(formats) > 1),
                **_entry_row(entry, runs, [by_id[each.run.run_id] for each in runs], alone),
            }
            for entry, runs in parts.items()
        }
        _adjust([*found.values()])
        _rank(found, parts)
        complete += found.values()
    return complete


def _entry_row(entry: Entry, parts: Sequence[Measured], rows: Sequence[Row], alone: Alone) -> Row:
    """What one entry scored and took in one or several domains, and what it gained."""
    pairs = contrasts.pool([own(each.items) for each in parts])
    scores = pairs.ours[pairs.scored]
    estimate = stats.mean_interval(scores, pairs.clusters[pairs.scored])
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
        "weak_tokens_per_question": _mean(rows, "weak_tokens", None),
        "strong_tokens_per_question": _mean(rows, "strong_tokens", None),
        "created": max(each.run.created for each in parts),
        **_gains(parts, alone),
    }


def _mean(rows: Sequence[Row], name: str, weight: str | None) -> float | None:
    """Of a column over runs, by their answers; a sum is divided by them. None if any is not known."""
    values = [row[name] for row in rows]
    if any(value is None or np.isnan(value) for value in values):
        return None
    totals = [row[weight] * row[name] if weight else row[name] for row in rows]
    return float(sum(totals) / sum(row[weight or "n_total"] for row in rows))


def _gains(parts: Sequence[Measured], alone: Alone) -> Row:
    """A collaboration against its strong model alone, and against the better of its two alone."""
    if not (parts[0].run.weak and parts[0].run.strong):
        return {}
    strong = [alone(each, "strong") for each in parts]
    weak = [alone(each, "weak") for each in parts]
    absent = [
        f"{role} alone" for role, runs in (("strong", strong), ("weak", weak)) if None in runs
    ]
    row: Row = {"missing": ", ".join(absent) or None}
    over_strong = _contrast(parts, strong)
    if over_strong:
        counted = ("helped", "hurt", "both_right", "both_wrong", "not_scored")
        row |= {name: getattr(over_strong, name) for name in counted}
        row |= _over("strong", over_strong)
    ahead = _contrast(weak, strong)
    if ahead:
        best = "weak" if ahead.ours > ahead.theirs else "strong"
        over_best = _contrast(parts, weak if best == "weak" else strong)
        if over_best:
            row |= {"best_single": best, "needed": over_best.needed, **_over("best", over_best)}
            row |= {"over_best_p": over_best.p, "over_best_detectable": over_best.detectable}
    return row


def _over(whom: str, found: Contrast) -> Row:
    value, low, high = found.difference
    return {
        f"over_{whom}": value,
        f"over_{whom}_low": low,
        f"over_{whom}_high": high,
        f"over_{whom}_verdict": str(found.verdict),
    }


def _contrast(
    ours: Sequence[Measured | None], theirs: Sequence[Measured | None]
) -> Contrast | None:
    """Runs against others of the same data; None if any is missing, or no question has both scores."""
    both = [(mine, other) for mine, other in zip(ours, theirs, strict=True) if mine and other]
    if len(both) < len(ours):
        return None
    return contrast(
        contrasts.pool([contrasts.pair(mine.items, other.items) for mine, other in both])
    )


def _adjust(rows: Sequence[Row]) -> None:
    """Holm's p over the entries of one suite and domain, and whether it is below the level."""
    tested = [row for row in rows if "over_best_p" in row]
    adjusted = stats.holm([row["over_best_p"] for row in tested])
    for row, p in zip(tested, adjusted, strict=True):
        row |= {"over_best_p": float(p), "significant": bool(p < ALPHA)}


def _rank(rows: Mapping[Entry, Row], parts: Mapping[Entry, Sequence[Measured]]) -> None:
    """Between which ranks every entry lies, and the ties.

    On the questions that all of them have scores for; controls, and entries with a coverage below
    ``MIN_COVERAGE``, stay out. In the order of their best rank, then score, a new tie group begins with
    every entry whose ranks no longer overlap those of the group's first member.
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
    for entry, rank in zip(
        ranked, resampling.rank_intervals(scores, _joined(clusters)), strict=True
    ):
        rows[entry] |= {"rank_best": rank.best, "rank_worst": rank.worst}
    group, last = 0, 0
    for row in sorted(
        (rows[entry] for entry in ranked), key=lambda row: (row["rank_best"], -row["score"])
    ):
        if row["rank_best"] > last:
            group, last = group + 1, row["rank_worst"]
        row["tie_group"] = group


def _common(several: Sequence[Items]) -> tuple[Floats, Any]:
    """Scores of systems (rows) on the questions that all have scores for, and their clusters."""
    keys = reduce(np.intersect1d, [each.keys[~np.isnan(each.scores)] for each in several])
    places = [np.searchsorted(each.keys, keys) for each in several]
    scores = np.stack([each.scores[rows] for each, rows in zip(several, places, strict=True)])
    return scores, np.unique(several[0].clusters[places[0]], return_inverse=True)[1]


def _joined(clusters: Any) -> Any:
    """Clusters joined at random into ``MOST_GROUPS``, where there are more: as independent, and faster."""
    groups = int(clusters.max()) + 1
    if groups <= MOST_GROUPS:
        return clusters
    return (np.random.default_rng(0).permutation(groups) % MOST_GROUPS)[clusters]
