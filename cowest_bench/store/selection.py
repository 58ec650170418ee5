"""Which stored runs a comparison means, what each is compared with, and what is read of them.

    3f2a                               the run whose id starts with this
    "system=collab weak=NAME"          the newest run of each entry that all pairs hold for
    "system=collab @previous"          the run before the newest one
    "system=collab @all"               every run, where several make sense

Keys are those of ``KEYS``. The value for a model is its name, its label, its adapter, or the model that
it was trained from here; ``none`` means nothing. Unless they are given, split is ``test`` and control
is ``none``. Runs of one entry on the same data are its checkpoints, oldest first.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any, Self

import numpy as np

from cowest_bench.analysis import contrasts
from cowest_bench.analysis.contrasts import Comparison, Items, Pairs
from cowest_bench.config import ModelSpec, Role
from cowest_bench.errors import ComparisonError, ConfigError, RecordError, printable, suggestion
from cowest_bench.store.entry import Entry
from cowest_bench.store.ids import content_hash
from cowest_bench.store.records import Run
from cowest_bench.store.results import Results

KEYS = ("task", "domain", "split", "system", "weak", "strong", "control", "format", "seed")
UNLESS_NAMED = {"split": "test", "control": "none"}
ALL = "@all"
#: Of the checkpoints of an entry, oldest first.
CHECKPOINTS = {"@newest": slice(-1, None), "@previous": slice(-2, -1), ALL: slice(None)}
SHOWN = 8  # candidates that a sentence lists
ANSWERING: tuple[Role, ...] = ("weak", "strong")


# --- which runs -----------------------------------------------------------------------------------


def checkpoints(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs of every entry on the same data, in the order in which they are given."""
    found: dict[tuple[str, Entry], list[Run]] = defaultdict(list)
    for run in runs:
        found[run.data, Entry.of(run)].append(run)
    return [*found.values()]


def select(stored: Sequence[Run], text: str, damaged: Sequence[str] = ()) -> list[Run]:
    """The runs that a selection means, one for each data set, by domain.

    Args:
        stored: Every run, oldest first.
        text: See the module.
        damaged: What could not be read, a sentence each, for the error if no run is found.

    Raises:
        ConfigError: If the selection cannot be understood, or means no run or several of one data set.
        RecordError: If it means no run, and some could not be read.
    """
    if ALL in text.split():
        raise ConfigError(
            f"{text!r} means several runs of one entry, and only one can be used here; leave out "
            f"{ALL}, or type @previous or the start of a run's id."
        )
    found = select_all(stored, text, damaged)
    by_data = {run.data: run for run in found}
    if len(by_data) < len(found):
        raise ConfigError(
            f"{text!r} means several entries on the same data: {_listed(found)}; type the start of an "
            f"id, or more keys ({', '.join(KEYS)})."
        )
    return found


def select_all(stored: Sequence[Run], text: str, damaged: Sequence[str] = ()) -> list[Run]:
    """As ``select``, for any number of entries; ``@all`` means every checkpoint of each.

    Raises:
        ConfigError: If the selection cannot be understood, or means no run.
        RecordError: If it means no run, and some could not be read.
    """
    wanted, starts, which = _read(text)
    matching = [run for run in stored if all(_is(run, *pair) for pair in wanted.items())]
    if starts:
        found = [_starting(stored, start, damaged) for start in starts]
    else:
        found = [run for same in checkpoints(matching) for run in same[CHECKPOINTS[which]]]
    if not found and matching:
        raise ConfigError(
            f"No run is before the newest one of its entry; {text!r} without {which} means "
            f"{_listed(matching)}."
        )
    if not found:
        raise _not_found(f"No stored run is {text!r}", stored, damaged)
    return sorted(found, key=lambda run: (run.domain, run.data))


def _read(text: str) -> tuple[dict[str, str], list[str], str]:
    """What has to hold for a run, or else how ids start; and which checkpoints are meant."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} cannot be read: {error}.") from error
    wanted = dict(word.split("=", 1) for word in words if "=" in word)
    which = [word for word in words if word.startswith("@")]
    starts = [word for word in words if "=" not in word and word not in which]
    if bool(wanted) == bool(starts) or len(which) > 1 or (starts and which):
        raise ConfigError(
            f"{text!r} is neither the start of a run's id nor KEY=VALUE pairs, which may end with "
            f"{' or '.join(CHECKPOINTS)}."
        )
    for key in wanted:
        if key not in KEYS:
            raise ConfigError(f"Runs have no {key}; {suggestion(key, KEYS)}")
    for word in which:
        if word not in CHECKPOINTS:
            raise ConfigError(f"There is no {word}; {suggestion(word, CHECKPOINTS)}")
    return UNLESS_NAMED | wanted, starts, which[0] if which else "@newest"


def _starting(stored: Sequence[Run], start: str, damaged: Sequence[str]) -> Run:
    found = [run for run in stored if run.run_id.startswith(start)]
    if not found:
        raise _not_found(f"No stored run's id starts with {start!r}", stored, damaged)
    if len(found) > 1:
        raise ConfigError(
            f"Several runs start with {start}: {_listed(found)}; type more of the id."
        )
    return found[0]


def _not_found(why: str, stored: Sequence[Run], damaged: Sequence[str]) -> Exception:
    """It may be among the runs that cannot be read: then nobody has typed anything wrong."""
    text = f"{why}; there are: {_listed(stored)}."
    return RecordError(" ".join([text, *damaged])) if damaged else ConfigError(text)


def _is(run: Run, key: str, value: str) -> bool:
    held: Any = getattr(run, key)
    if isinstance(held, ModelSpec):
        return value in (held.name, held.label, held.adapter, held.base)
    return value == ("none" if held is None else str(held))


def _listed(runs: Sequence[Run]) -> str:
    names = [f"{run.run_id} ({described(run)})" for run in runs[:SHOWN]]
    rest = [f"and {len(runs) - SHOWN} more"] if len(runs) > SHOWN else []
    return ", ".join([*names, *rest]) or "none"


def described(run: Run) -> str:
    """A run in a few words."""
    models = " + ".join(spec.label for spec in (run.weak, run.strong) if spec)
    about = [run.domain, run.system, models, f"seed={run.seed}", run.control, run.split]
    return printable(" ".join(word for word in about if word))


# --- the models alone -----------------------------------------------------------------------------


def alone(run: Run, system: str, stored: Sequence[Run]) -> Run | None:
    """The run of the same data in which a model of ``run`` answers alone, by the single system's name.

    The newest run with the same model. For the weak model, if there is none, the newest run with a
    model of the same origin (``closest_last``): the one that the tuning started from. None if there is
    neither, since another model's score says nothing about this run.
    """
    known = [
        other
        for other in stored
        if (other.system, other.control, other.data) == (system, None, run.data)
    ]
    own = [other for other in known if _same_models(other, run)]
    before = closest_last(run, [other for other in known if _asked(other) == ["weak"]])
    return next(reversed(own or before), None)


def _same_models(single: Run, run: Run) -> bool:
    """Whether every model of a single system's run is the one that has its role in the other run."""
    return all(
        run.model_ids.get(role) is not None and single.model_ids.get(role) == run.model_ids[role]
        for role in _asked(single)
    )


def _asked(run: Run) -> list[Role]:
    """The roles that answer."""
    return [role for role in ANSWERING if role in run.models]


def closest_last(run: Run, others: Sequence[Run]) -> list[Run]:
    """The runs whose weak model has the same origin as this run's, in the order of how close it is.

    First those whose model was trained here from the same one, then those with the same weights under
    another adapter; the given order remains within each.
    """
    related = [
        (other.weak.name == run.weak.name, other)
        for other in others
        if run.weak
        and other.weak
        and (other.weak.name == run.weak.name or other.weak.base_label == run.weak.base_label)
    ]
    return [other for _, other in sorted(related, key=lambda pair: pair[0])]


# --- what is read of them -------------------------------------------------------------------------


class StoredItems:
    """The items of stored runs, each read once.

    A run whose rows cannot be read is added to ``results.damaged`` and has no items.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        self._known: dict[str, Items | None] = {}

    def of(self, run: Run) -> Items | None:
        """A run's samples; None if they cannot be read."""
        if run.run_id not in self._known:
            try:
                self._known[run.run_id] = items(self.results, run)
            except RecordError as error:
                self.results.skip(run, error)
                self._known[run.run_id] = None
        return self._known[run.run_id]

    def all_of(self, runs: Sequence[Run | None]) -> list[Items] | None:
        """The samples of several runs; None if a run is missing or cannot be read."""
        found = [self.of(run) for run in runs if run]
        known = [each for each in found if each]
        return known if len(known) == len(runs) else None


def items(results: Results, run: Run) -> Items:
    """A run's samples, with their ids as keys and whole numbers as clusters.

    Raises:
        RecordError: If the rows cannot be read.
    """
    table = results.columns(run, ("sample_id", "score", "cluster"))
    ids = table["sample_id"].to_numpy()
    encoded = table["cluster"].unify_dictionaries().combine_chunks()
    # A sample without a cluster is one of its own.
    own = np.unique(ids, return_inverse=True)[1] + len(encoded.dictionary)
    codes = encoded.indices.fill_null(-1).to_numpy()
    return Items.from_rows(
        ids, table["score"].to_numpy().astype(float), np.where(codes < 0, own, codes)
    )


@dataclass(frozen=True, slots=True)
class Profile:
    """What a run scored and took, beside the comparison.

    Attributes:
        run: The run.
        usd_per_1k: US dollars paid to endpoints per thousand samples asked once, from those with a
            score; NaN if the cost of any is not known.
        seconds_per_1k: Seconds that the models took for them, one after the other; NaN if any is not
            known.
        copy_rate: Share of a collaboration's answers that are the answers of the same weak model
            alone, ignoring case and space; NaN if that model has no run alone on the same data.
        gap_recovered: ``contrasts.gap_recovered`` by the runs of its models alone (``alone``); NaN if
            one of them is missing.
    """

    run: Run
    usd_per_1k: float = nan
    seconds_per_1k: float = nan
    copy_rate: float = nan
    gap_recovered: float = nan


def profile(
    results: Results, run: Run, stored: Sequence[Run], read: StoredItems | None = None
) -> Profile:
    """What a run took, and what it made of its models, by the ``stored`` runs of each alone.

    Numbers that cannot be read are NaN, and the run is added to ``results.damaged``.
    """
    read = read or StoredItems(results)
    singles = [alone(run, name, stored) for name in run.compared_with]
    try:
        usd, seconds = _prices(results, run)
        copied = copy_rate(results, run, [each for each in singles if each])
    except RecordError as error:
        results.skip(run, error)
        return Profile(run)
    known = read.all_of([run, *singles])
    recovered = contrasts.gap_recovered(*known) if known else nan
    return Profile(run, usd, seconds, copied, recovered)


def _prices(results: Results, run: Run) -> tuple[float, float]:
    """US dollars and seconds per thousand samples."""
    took = [f"{role}_seconds" for role in _asked(run)]
    table = results.columns(run, ("score", "cost", *took))
    scored = ~np.isnan(table["score"].to_numpy())
    seconds = np.sum([table[name].to_numpy() for name in took], axis=0)
    return _per_1k(table["cost"].to_numpy(), scored), _per_1k(seconds, scored)


def _per_1k(values: Any, scored: Any) -> float:
    """NaN if any value is."""
    return 1000 * float(values[scored].mean()) if scored.any() else nan


def copy_rate(results: Results, run: Run, singles: Sequence[Run]) -> float:
    """Share of a run's answers that are those of its weak model alone, ignoring case and outer space.

    NaN if none of the ``singles`` is a run of exactly this weak model.
    """
    import pyarrow.compute as pc

    weak = [each for each in singles if _asked(each) == ["weak"] and _same_models(each, run)]
    if not weak:
        return nan
    ours, theirs = (results.columns(each, ("sample_id", "answer")) for each in (run, weak[0]))
    ids, first = np.unique(theirs["sample_id"].to_numpy(), return_index=True)
    wanted = ours["sample_id"].to_numpy()
    places = np.searchsorted(ids, wanted).clip(max=len(ids) - 1)
    known = ids[places] == wanted
    mine = ours["answer"].filter(known)
    others = theirs["answer"].take(first[places[known]])
    same = pc.equal(*(pc.utf8_lower(pc.utf8_trim_whitespace(each)) for each in (mine, others)))
    return float(pc.mean(same).as_py() or 0.0) if pc.count(same).as_py() else nan


# --- how two runs were made -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Provenance:
    """What is recorded of how a run was made, and is not part of its id.

    Attributes:
        domain: Of its task.
        score_id: How its answers were scored.
        versions: Libraries by version.
        reported: Which models endpoints said had answered, by role.
        models: Labels of the models, by role.
    """

    domain: str
    score_id: str
    versions: Mapping[str, str]
    reported: Mapping[str, Sequence[str]]
    models: Mapping[str, str | None]

    @classmethod
    def of(cls, run: Run) -> Self:
        """That of a stored run."""
        labels = {str(role): spec.label for role, spec in run.models.items()}
        return cls(run.domain, run.score_id, run.versions, run.reported, labels)


def made_differently(sides: Sequence[tuple[Provenance, Provenance]]) -> list[str]:
    """What else differs between the two sides of a comparison, a sentence each.

    Args:
        sides: A run of A and the run of B on the same data, for each data set.
    """
    return [*_versions(sides), *_reported(sides), *_scoring(sides)]


def _versions(sides: Sequence[tuple[Provenance, Provenance]]) -> Iterator[str]:
    names = sorted({name for pair in sides for each in pair for name in each.versions})
    differing = []
    for name in names:
        ours, theirs = (
            sorted({each.versions[name] for each in side if name in each.versions})
            for side in zip(*sides, strict=True)
        )
        if ours and theirs and ours != theirs:
            differing.append(f"{name} {', '.join(ours)} in A and {', '.join(theirs)} in B")
    if differing:
        yield f"made with different versions of libraries: {'; '.join(differing)}"


def _reported(sides: Sequence[tuple[Provenance, Provenance]]) -> Iterator[str]:
    for ours, theirs in sides:
        for role in ours.reported.keys() & theirs.reported.keys():
            named = ours.models.get(role)
            said = [sorted(each.reported[role]) for each in (ours, theirs)]
            if named == theirs.models.get(role) and said[0] != said[1]:
                yield (
                    f"{ours.domain}: the endpoint of the {role} model {named} reported "
                    f"{', '.join(said[0])} in A and {', '.join(said[1])} in B; the name may stand for "
                    "another model now"
                )


def _scoring(sides: Sequence[tuple[Provenance, Provenance]]) -> Iterator[str]:
    for ours, theirs in sides:
        if ours.score_id != theirs.score_id:
            yield (
                f"{ours.domain}: scored differently in A and B; type cowest rescore to score both alike"
            )


# --- a comparison of runs -------------------------------------------------------------------------


def by_domain(parts: Sequence[tuple[str, Pairs]]) -> dict[str, Pairs]:
    """The data sets of each domain as one."""
    names = dict.fromkeys(name for name, _ in parts)
    return {
        name: contrasts.pool([pairs for domain, pairs in parts if domain == name]) for name in names
    }


def shared(ours: Sequence[Run], theirs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """The runs of both sides that answered the same data, or its first samples (``limit``).

    Raises:
        ComparisonError: If there are none.
    """
    known = {run.data: run for run in theirs}
    known |= {_but_limit(run): run for run in theirs if _but_limit(run) not in known}
    both = [
        (run, other)
        for run in ours
        if (other := known.get(run.data) or known.get(_but_limit(run)))
        and (other.data == run.data or _limits_differ(run, other))
    ]
    if not both:
        raise ComparisonError(
            f"{_listed(ours)} and {_listed(theirs)} did not answer the same data (their data hashes "
            "differ: another task, split, seed, limit or prompt); compare runs of the same data."
        )
    return both


def _but_limit(run: Run) -> str:
    """What decides a run's samples, except how many of them were asked."""
    options = {key: value for key, value in run.options.items() if key != "limit"}
    return content_hash([run.task, run.split, options])


def _limits_differ(one: Run, other: Run) -> bool:
    return bool(one.options.get("limit") != other.options.get("limit"))


def _pair(read: StoredItems, mine: Run, other: Run) -> Pairs:
    """The samples of two runs side by side.

    Raises:
        ComparisonError: If one asked fewer, and the samples that both asked are not the same.
        RecordError: If the rows of one cannot be read.
    """
    if mine.data != other.data:
        _require_same_samples(read.results, mine, other)
    known = read.all_of([mine, other])
    if known is None:
        raise RecordError(" ".join(read.results.damaged))
    return contrasts.pair(*known)


def _require_same_samples(results: Results, mine: Run, other: Run) -> None:
    names = ("sample_id", "question", "gold")
    asked = [
        {row["sample_id"]: row for row in results.columns(run, names).to_pylist()}
        for run in (mine, other)
    ]
    if any(asked[0][key] != asked[1][key] for key in asked[0].keys() & asked[1].keys()):
        raise ComparisonError(
            f"{_listed([mine, other])} differ in their limit, but also in the samples that both asked "
            "(another version of the data or of the task); compare runs of the same data."
        )


@dataclass(frozen=True, slots=True)
class Compared:
    """Stored runs, compared.

    Attributes:
        ours: The runs of A, with what they took.
        theirs: The runs of B, with what they took.
        comparison: Verdicts by domain and pooled.
        warnings: What else differs between the sides, and what could not be read, a sentence each.
    """

    ours: tuple[Profile, ...]
    theirs: tuple[Profile, ...]
    comparison: Comparison
    warnings: tuple[str, ...]


def compare_runs(results: Results, a: str, b: str, *, margin: float, alpha: float) -> Compared:
    """Compare two selections of stored runs on the data that both answered.

    A run whose rows cannot be read is left out with a warning if another one remains.

    Raises:
        ConfigError: If a selection means no run, or several of one data set.
        ComparisonError: If they have no sample in common that both have a score for, or no run of a
            side can be read.
    """
    stored, read = results.all_runs(), StoredItems(results)
    ours, theirs = (_readable(read, select(stored, text, results.damaged)) for text in (a, b))
    both = shared(ours, theirs)
    parts = [(mine.domain, _pair(read, mine, other)) for mine, other in both]
    comparison = contrasts.compare(by_domain(parts), margin=margin, alpha=alpha)
    profiles = tuple(profile(results, run, stored, read) for run in ours)
    others = tuple(profile(results, run, stored, read) for run in theirs)
    made = [(Provenance.of(mine), Provenance.of(other)) for mine, other in both]
    warnings = (*made_differently(made), *results.damaged)
    return Compared(profiles, others, comparison, warnings)


def _readable(read: StoredItems, runs: Sequence[Run]) -> list[Run]:
    found = [run for run in runs if read.of(run)]
    if not found:
        raise RecordError(" ".join(read.results.damaged))
    return found
