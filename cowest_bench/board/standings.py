"""What the leaderboard says of finished runs: entries, scores, gains, ranks and gates.

An *entry* is what a row of the leaderboard is about: a system with its models, whatever checkpoints of
them there were. Runs of an entry on the same data are its *checkpoints*; the newest is current. Tasks
that are shown side by side are a *suite*, each a *domain* of it. All statistics are those of ``compare``
and ``resampling``, with ``MARGIN`` and ``ALPHA``; missing systems leave None.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cowest_bench.analysis import contrasts, stats
from cowest_bench.analysis.contrasts import Contrast, Items, Pairs
from cowest_bench.board.snapshot import ALPHA, MARGIN, POOLED
from cowest_bench.config import Role
from cowest_bench.errors import CowestError, printable
from cowest_bench.gate import baseline
from cowest_bench.gate.baseline import ScoredRun
from cowest_bench.store import Results, Run, content_hash, selection

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
        domain: Its domain, as it is shown.
        items: Its questions with their scores.
        usage: Columns of the snapshot's table ``runs`` that are sums over its rows, and their costs.
        draft_tokens: Mean length of its drafts, None where that is not known.
    """

    stored: Stored
    suite: str
    domain: str
    items: Items
    usage: Mapping[str, Any]
    draft_tokens: float | None

    @property
    def run(self) -> Run:
        """The run."""
        return self.stored.run


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


# --- suites ---------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where a data set is shown."""

    suite: str
    domain: str


def places(runs: Iterable[Run]) -> dict[str, Place]:
    """The suite and the domain of every data set, by its hash; each has a place of its own.

    A suite's label is its name, or that of the group or else of the task, and the options that change
    the data: ``cowest · limit=100``. Where a domain of a suite still has several data sets (a task was
    changed, say), all but the newest say which: `` · data 1a2b``. No domain is called ``POOLED``.
    """
    by_data: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: (run.created, run.run_id)):
        by_data[run.data].append(run)
    rivals: dict[Place, list[str]] = defaultdict(list)
    for data, same in sorted(by_data.items(), key=lambda item: (item[1][-1].created, item[0])):
        # An option may change nothing, such as a limit that is not reached: then the shortest name.
        label = min((_suite_label(run) for run in same), key=lambda label: (len(label), label))
        domain = shown(same[-1].domain)
        rivals[Place(label, f"{POOLED} (domain)" if domain == POOLED else domain)].append(data)
    found = {}
    for place, (*older, newest) in rivals.items():
        found[newest] = place
        digits = 4 if len({data[:4] for data in older}) == len(older) else None
        for data in older:
            found[data] = place._replace(suite=f"{place.suite} · data {printable(data[:digits])}")
    return found


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
        found[Entry.of(each.run), each.run.data].append(each)
    return [*found.values()]


def run_rows(members: Sequence[Measured], texts: bool = True) -> list[Row]:
    """The table ``runs`` of one suite."""
    alone = Alone(members)
    current = {history[-1].run.run_id for history in histories(members)}
    return [_run_row(each, each.run.run_id in current, alone, texts) for each in members]


def _run_row(each: Measured, current: bool, alone: Alone, texts: bool) -> Row:
    run, pairs = each.run, own(each.items)
    estimate = stats.mean_interval(pairs.ours[pairs.scored], pairs.clusters[pairs.scored])
    singles = {role: alone(each, role) for role in selection.ANSWERING}
    drafts = run.identity.get("drafts")
    told = dict(drafts) if isinstance(drafts, dict) else {}
    prompts = told.get("prompts")
    if not texts:
        told, prompts = {key: told[key] for key in told if key != "prompts"}, None
    identity = run.identity | ({"drafts": told} if told else {})
    return {
        **run.model_dump(include={"run_id", "split", "system", "seed", "epochs", "attempts"}),
        **each.usage,
        "suite": each.suite,
        "task": shown(run.task),
        "domain": each.domain,
        "data": run.data,
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
        "metrics": {name: contrasts.finite(value) for name, value in run.metrics.items()},
        "identity": identity,
        "versions": run.versions,
        "prompts": prompts,
        "created": run.created,
        **{f"{role}_run": found.run.run_id for role, found in singles.items() if found},
    }


class Alone:
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


def own(items: Items) -> Pairs:
    """A run's questions in the form that can be pooled."""
    return contrasts.pair(items, items)


def contrast(pairs: Pairs) -> Contrast | None:
    """With the leaderboard's margin and level; None if no question has a score on both sides."""
    return contrasts.contrast(pairs, margin=MARGIN, alpha=ALPHA) if pairs.scored.any() else None


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
                pairs = contrasts.pair(each.items, before.items)
                rows += _gate(each.run, before.run.run_id, "previous", pairs)
            known = blessed.get((each.run.data, each.run.system))
            if known and (scored := _hashed(each, warn)):
                rows += _gate(
                    each.run, known[0], "baseline", contrasts.pair(scored.items, known[1].items)
                )
    return rows


def _hashed(each: Measured, warn: Callable[[str], None]) -> ScoredRun | None:
    try:
        return baseline.scored(each.stored.results, each.run)
    except CowestError as error:  # it has too many questions, or was removed meanwhile
        warn(str(error))
        return None


def _gate(run: Run, against: str, kind: str, pairs: Pairs) -> list[Row]:
    found = contrast(pairs)
    if found is None:
        return []
    value, low, high = found.difference
    about = {"run_id": run.run_id, "against": against, "kind": kind, "n": found.n}
    return [about | {"difference": value, "low": low, "high": high, "verdict": str(found.verdict)}]


def baseline_rows(
    baselines: Sequence[baseline.Baseline], known_places: Mapping[str, Place]
) -> list[Row]:
    """The table ``baselines``; of a data set without runs the suite is not known."""
    rows = []
    for each in baselines:
        for run in each.runs:
            place = known_places.get(run.data)
            known = [score for score in run.scores.values() if score is not None]
            rows.append(
                {
                    "name": shown(each.name),
                    "blessed": each.blessed,
                    "suite": place and place.suite,
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
