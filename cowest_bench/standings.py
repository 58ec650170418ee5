"""What the leaderboard says of finished runs: entries, scores, gains, ranks and gates.

An *entry* is what a row of the leaderboard is about: a system with its models, whatever checkpoints of
them there were. Runs of an entry on the same data are its *checkpoints*; the newest is current. Tasks
that are shown side by side are a *suite*, each a *domain* of it. All statistics are those of ``compare``
and ``resampling``, with ``MARGIN`` and ``ALPHA``; missing systems leave None.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any

import numpy as np

from cowest_bench import baseline, compare, resampling, selection, stats
from cowest_bench.baseline import ScoredRun
from cowest_bench.compare import Contrast, Items, Pairs
from cowest_bench.config import Role
from cowest_bench.errors import ConfigError, printable
from cowest_bench.records import Results, Run, content_hash
from cowest_bench.snapshot import ALPHA, MARGIN, MIN_COVERAGE, POOLED
from cowest_bench.stats import Floats

NAME_LENGTH = 200  # characters of a name of others that are shown
MOST_GROUPS = 5_000  # clusters that ranks resample; more are joined at random into so many

#: Options of a task that do not change what is asked, or are said by the suite's name.
UNSAID_OPTIONS = ("data", "include_path", "group")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stored:
    """A finished run, and where it is.

    Attributes:
        run: The run.
        results: The folder that its rows are in.
        source: ``local`` or ``reference``.
    """

    run: Run
    results: Results
    source: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A test run with what was measured.

    Attributes:
        stored: The run, and where it is.
        suite: Label of its suite.
        items: Its questions with their scores.
        usage: Columns of the snapshot's table ``runs`` that are sums over its rows.
        draft_tokens: Mean length of its drafts, None where that is not known.
    """

    stored: Stored
    suite: str
    items: Items
    usage: Mapping[str, Any]
    draft_tokens: float | None

    @property
    def run(self) -> Run:
        """The run."""
        return self.stored.run

    @property
    def domain(self) -> str:
        """Its domain, as it is shown."""
        return domain_label(self.run)


@dataclass(frozen=True, slots=True)
class Entry:
    """A system with its models, by the labels that all checkpoints of a model share."""

    system: str
    weak: str | None
    strong: str | None
    format: str | None
    control: str | None

    @classmethod
    def of(cls, run: Run) -> Entry:
        """The entry that a run is a checkpoint of."""
        weak = run.weak.base_label if run.weak else None
        strong = run.strong.base_label if run.strong else None
        return cls(run.system, weak, strong, run.format, run.control)

    @property
    def id(self) -> str:
        """Twelve hex digits."""
        return content_hash([self.system, self.weak, self.strong, self.format, self.control])

    def label(self, with_format: bool) -> str:
        """``collab: weak-64 + strong (shuffled)``; the format where a suite has several."""
        models = " + ".join(name for name in (self.weak, self.strong) if name)
        text = f"{self.system}: {models}" if self.weak and self.strong else models
        notes = [self.format if with_format else None, self.control]
        return shown(" ".join([text, *(f"({note})" for note in notes if note)]))


def shown(text: str) -> str:
    """A name of others: of bounded length, without what moves a cursor or turns the direction."""
    clean = printable(text)
    return clean if len(clean) <= NAME_LENGTH else clean[: NAME_LENGTH - 1] + "…"


def domain_label(run: Run) -> str:
    """A run's domain, which is never ``POOLED``."""
    return f"{POOLED} (domain)" if run.domain == POOLED else shown(run.domain)


# --- suites ---------------------------------------------------------------------------------------


def suite_labels(runs: Iterable[Run]) -> dict[str, str]:
    """The suite of every data set (by its hash): ``pocket · seed=11``.

    The suite's name, or that of the group or else of the task, and the options that change the data.
    Where one domain of a suite still has several data sets (a task that was changed, say), all but the
    newest say which: `` · data 1a2b``.
    """
    by_data: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_data[run.identity["data"]].append(run)
    labels = {
        # An option may change nothing, such as a limit that is not reached: then the shortest name.
        data: min((_suite_label(run) for run in same), key=lambda label: (len(label), label))
        for data, same in by_data.items()
    }
    rivals: dict[tuple[str, str], list[str]] = defaultdict(list)
    newest = {data: max(run.created for run in same) for data, same in by_data.items()}
    for data, same in by_data.items():
        rivals[labels[data], domain_label(same[0])].append(data)
    for several in rivals.values():
        for data in sorted(several, key=lambda each: (newest[each], each))[:-1]:
            labels[data] += f" · data {shown(data)[:4]}"
    return labels


def _suite_label(run: Run) -> str:
    name = run.suite or run.options.get("group") or run.task
    options = [
        f"{key}={value}"
        for key, value in sorted(run.options.items())
        if key not in UNSAID_OPTIONS and value is not None
    ]
    return shown(" · ".join([str(name), *options]))


# --- runs -----------------------------------------------------------------------------------------


def histories(members: Sequence[Measured]) -> list[list[Measured]]:
    """The checkpoints of every entry on the same data, oldest first."""
    found: dict[tuple[Entry, str], list[Measured]] = defaultdict(list)
    for each in sorted(members, key=lambda each: (each.run.created, each.run.run_id)):
        found[Entry.of(each.run), each.run.identity["data"]].append(each)
    return [*found.values()]


def run_rows(members: Sequence[Measured], texts: bool = True) -> list[Row]:
    """The table ``runs`` of one suite."""
    alone = _Alone(members)
    current = {history[-1].run.run_id for history in histories(members)}
    return [_run_row(each, each.run.run_id in current, alone, texts) for each in members]


def _run_row(each: Measured, current: bool, alone: _Alone, texts: bool) -> Row:
    run, pairs = each.run, _own(each.items)
    estimate = stats.mean_interval(pairs.ours[pairs.scored], pairs.clusters[pairs.scored])
    profile = selection.profile(each.stored.results, run, ())
    singles = {role: alone(each, role) for role in selection.ANSWERING}
    prompts = run.identity.get("drafts", {}).get("prompts") if texts else None
    identity = dict(run.identity)
    if not texts and "drafts" in identity:
        identity["drafts"] = {k: v for k, v in identity["drafts"].items() if k != "prompts"}
    return {
        **run.model_dump(include={"run_id", "split", "system", "seed", "epochs", "attempts"}),
        **each.usage,
        "suite": each.suite,
        "task": shown(run.task),
        "domain": each.domain,
        "data": run.identity["data"],
        "entry": Entry.of(run).id,
        "format": run.format and shown(run.format),
        "control": run.control and shown(run.control),
        **{role: shown(spec.base_label) for role, spec in run.models.items()},
        **{
            f"{role}_checkpoint": shown(spec.label)
            for role, spec in run.models.items()
            if role in selection.ANSWERING
        },
        "current": current,
        "source": each.stored.source,
        "options": {k: v for k, v in run.options.items() if k not in ("data", "include_path")},
        "n_questions": len(each.items.keys),
        "coverage": each.usage["n_scored"] / each.usage["n_total"],
        "score": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "usd_per_1k": profile.usd_per_1k,
        "seconds_per_1k": profile.seconds_per_1k,
        "metrics": {name: compare.finite(value) for name, value in run.metrics.items()},
        "identity": identity,
        "versions": run.identity.get("versions", {}),
        "prompts": prompts,
        "created": run.created,
        **{f"{role}_run": found.run.run_id for role, found in singles.items() if found},
    }


class _Alone:
    """Finds the runs in which the models of a collaboration answered alone."""

    def __init__(self, members: Sequence[Measured]) -> None:
        self.known = {each.run.run_id: each for each in members}
        self.runs = sorted(
            (each.run for each in members), key=lambda run: (run.created, run.run_id)
        )

    def __call__(self, each: Measured, role: Role) -> Measured | None:
        """Of the same data; None where there is none, or the run is none of a collaboration."""
        if not (each.run.weak and each.run.strong):
            return None
        found = selection.alone(each.run, role, self.runs)
        return self.known[found.run_id] if found else None


def _own(items: Items) -> Pairs:
    """A run's questions in the form that can be pooled."""
    return compare.pair(items, items)


# --- entries --------------------------------------------------------------------------------------


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
    alone, by_id = _Alone(members), {row["run_id"]: row for row in rows}
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


def _entry_row(entry: Entry, parts: Sequence[Measured], rows: Sequence[Row], alone: _Alone) -> Row:
    """What one entry scored and took in one or several domains, and what it gained."""
    pairs = compare.pool([_own(each.items) for each in parts])
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


def _gains(parts: Sequence[Measured], alone: _Alone) -> Row:
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
    return contrast(compare.pool([compare.pair(mine.items, other.items) for mine, other in both]))


def contrast(pairs: Pairs) -> Contrast | None:
    """With the leaderboard's margin and level; None if no question has a score on both sides."""
    return compare.contrast(pairs, margin=MARGIN, alpha=ALPHA) if pairs.scored.any() else None


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


# --- gates ----------------------------------------------------------------------------------------


def gate_rows(
    members: Sequence[Measured],
    baselines: Sequence[baseline.Baseline],
    warn: Callable[[str], None],
) -> list[Row]:
    """The table ``gates`` of one suite.

    Every checkpoint against the one before it, and against the newest blessed baseline of the same
    data and system.
    """
    blessed = {
        (run.data, run.system): (each.name, run)
        for each in sorted(baselines, key=lambda each: each.blessed)
        for run in each.runs
    }
    rows = []
    for history in histories(members):
        for before, each in zip([None, *history], history, strict=False):
            if before:
                pairs = compare.pair(each.items, before.items)
                rows += _gate(each.run, before.run.run_id, "previous", pairs)
            known = blessed.get((each.run.identity["data"], each.run.system))
            if known and (scored := _hashed(each, warn)):
                rows += _gate(
                    each.run, known[0], "baseline", compare.pair(scored.items, known[1].items)
                )
    return rows


def _hashed(each: Measured, warn: Callable[[str], None]) -> ScoredRun | None:
    try:
        return baseline.scored(each.stored.results, each.run)
    except ConfigError as error:  # too many questions
        warn(str(error))
        return None


def _gate(run: Run, against: str, kind: str, pairs: Pairs) -> list[Row]:
    found = contrast(pairs)
    if found is None:
        return []
    value, low, high = found.difference
    about = {"run_id": run.run_id, "against": against, "kind": kind, "n": found.n}
    return [about | {"difference": value, "low": low, "high": high, "verdict": str(found.verdict)}]


def baseline_rows(baselines: Sequence[baseline.Baseline], suites: Mapping[str, str]) -> list[Row]:
    """The table ``baselines``; of a data set without runs the suite is not known."""
    rows = []
    for each in baselines:
        for run in each.runs:
            known = [score for score in run.scores.values() if score is not None]
            rows.append(
                {
                    "name": shown(each.name),
                    "blessed": each.blessed,
                    "suite": suites.get(run.data),
                    **run.model_dump(include={"run_id", "data"}),
                    **{
                        key: (value := getattr(run, key)) and shown(value)
                        for key in ("domain", "system", "weak", "strong")
                    },
                    "score": sum(known) / len(known) if known else None,
                    "n": len(known),
                }
            )
    return rows
