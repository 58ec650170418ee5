"""Which stored runs a comparison means, and the columns of theirs that it reads.

    3f2a                              a run, by the start of its id
    "weak=NAME system=collab"         the runs that all of these hold for

Keys are those of ``KEYS``; a model is its name, its label, its adapter or its base, and ``none`` is nothing.
Unless they are named, split is test and control none. Of one data set only one run may be meant.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np

from cowest_bench.analysis import contrasts
from cowest_bench.analysis.contrasts import Comparison, Items, Pairs
from cowest_bench.config import ModelSpec, Role
from cowest_bench.errors import ComparisonError, ConfigError, printable, suggestion
from cowest_bench.store.ids import content_hash
from cowest_bench.store.records import Run
from cowest_bench.store.results import Results

KEYS = ("task", "domain", "split", "system", "weak", "strong", "control", "format", "seed")
UNLESS_NAMED = {"split": "test", "control": "none"}
SHOWN = 8  # candidates that a sentence lists
ANSWERING: tuple[Role, ...] = ("weak", "strong")


# --- which runs -----------------------------------------------------------------------------------


def select(stored: Sequence[Run], text: str) -> list[Run]:
    """The runs that a selection means, one for each data set, by domain.

    Raises:
        ConfigError: If it cannot be read, means no run, or more than one of a data set.
    """
    wanted, starts = _read(text)
    if starts:
        found = [_starting(stored, start) for start in starts]
    else:
        found = [run for run in stored if all(_is(run, *pair) for pair in wanted.items())]
    if not found:
        raise ConfigError(f"No stored run is {text!r}; there are: {_listed(stored)}.")
    by_data = {run.data: run for run in found}
    if len(by_data) < len(found):
        raise ConfigError(
            f"{text!r} means several runs of one data set: {_listed(found)}; name one by its id, or "
            f"say more ({', '.join(KEYS)})."
        )
    return sorted(found, key=lambda run: (run.domain, run.data))


def _read(text: str) -> tuple[dict[str, str], list[str]]:
    """What has to hold for a run, or else how ids start."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} cannot be read: {error}.") from error
    wanted = dict(word.split("=", 1) for word in words if "=" in word)
    starts = [word for word in words if "=" not in word]
    if not words or (wanted and starts):
        raise ConfigError(f"{text!r} is neither the start of a run id nor KEY=VALUE pairs.")
    for key in wanted:
        if key not in KEYS:
            raise ConfigError(f"Runs have no {key}; {suggestion(key, KEYS)}")
    return UNLESS_NAMED | wanted, starts


def _starting(stored: Sequence[Run], start: str) -> Run:
    found = [run for run in stored if run.run_id.startswith(start)]
    if not found:
        raise ConfigError(
            f"No stored run's id starts with {start!r}; there are: {_listed(stored)}."
        )
    if len(found) > 1:
        raise ConfigError(
            f"Several runs start with {start}: {_listed(found)}; type more of the id."
        )
    return found[0]


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


# --- what is read of them -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Profile:
    """What a run scored and took, beside the comparison.

    Attributes:
        run: The run.
        usd_per_1k: US dollars paid to endpoints for a thousand questions asked once, from those with a
            score; NaN if the cost of any is not known.
        seconds_per_1k: Seconds that the weak and the strong model took for them, one after the other;
            NaN if any is not known.
        copy_rate: Share of a collaboration's answers that are the answer of the same weak model alone
            (its weak-only run), but for case and space; NaN where there is no such run.
        gap_recovered: ``compare.gap_recovered`` by the single runs of the same data: with the same
            weak model, else the newest one with a model of the same base (the one from before the
            tuning), else the only weak-only run there is; with the same strong model. NaN where they
            are missing.
    """

    run: Run
    usd_per_1k: float
    seconds_per_1k: float
    copy_rate: float
    gap_recovered: float


def items(results: Results, run: Run) -> Items:
    """A run's questions, with their ids as keys and whole numbers as clusters."""
    return _items(results.columns(run, ("sample_id", "score", "cluster")))


def _items(table: Any) -> Items:
    ids = table["sample_id"].to_numpy()
    encoded = table["cluster"].unify_dictionaries().combine_chunks()
    # A question without a cluster is one of its own.
    own = np.unique(ids, return_inverse=True)[1] + len(encoded.dictionary)
    codes = encoded.indices.fill_null(-1).to_numpy()
    return Items.from_rows(
        ids, table["score"].to_numpy().astype(float), np.where(codes < 0, own, codes)
    )


def profile(results: Results, run: Run, stored: Sequence[Run]) -> Profile:
    """What a run took, and what it made of its two models, by the ``stored`` runs of each alone."""
    roles = [role for role in ANSWERING if role in run.models]
    table = results.columns(run, ("score", "cost", *(f"{role}_seconds" for role in roles)))
    scored = ~np.isnan(table["score"].to_numpy())
    seconds = np.sum([table[f"{role}_seconds"].to_numpy() for role in roles], axis=0)
    copied = recovered = nan
    if len(roles) == len(ANSWERING):
        weak, strong = (alone(run, role, stored) for role in ANSWERING)
        if weak and _same_model(weak, run, "weak"):
            copied = copy_rate(results, run, weak)
        if weak and strong:
            three = (items(results, each) for each in (run, weak, strong))
            recovered = contrasts.gap_recovered(*three)
    usd = _per_1k(table["cost"].to_numpy(), scored)
    return Profile(run, usd, _per_1k(seconds, scored), copied, recovered)


def _per_1k(values: Any, scored: Any) -> float:
    """NaN if any value is."""
    return 1000 * float(values[scored].mean()) if scored.any() else nan


def alone(run: Run, role: Role, stored: Sequence[Run]) -> Run | None:
    """The run of the same data in which the model of a role answers alone (see ``Profile``)."""
    known = [
        other
        for other in stored
        if (other.system, other.control, other.data) == (role, None, run.data)
    ]
    own = [other for other in known if _same_model(other, run, role)]
    if own or role == "strong":
        return own[-1] if own else None
    base = run.models["weak"].base_label
    before = [other for other in known if other.models["weak"].base_label == base]
    if before:
        return before[-1]
    return known[0] if len(known) == 1 else None


def _same_model(one: Run, other: Run, role: Role) -> bool:
    models = [run.model_ids.get(role) for run in (one, other)]
    return bool(models[0] == models[1])


def copy_rate(results: Results, run: Run, weak: Run) -> float:
    """Share of a run's answers that are the weak-only answers, but for case and surrounding space."""
    import pyarrow.compute as pc

    ours, theirs = (results.columns(each, ("sample_id", "answer")) for each in (run, weak))
    ids, first = np.unique(theirs["sample_id"].to_numpy(), return_index=True)
    wanted = ours["sample_id"].to_numpy()
    places = np.searchsorted(ids, wanted).clip(max=len(ids) - 1)
    known = ids[places] == wanted
    mine = ours["answer"].filter(known)
    others = theirs["answer"].take(first[places[known]])
    same = pc.equal(*(pc.utf8_lower(pc.utf8_trim_whitespace(each)) for each in (mine, others)))
    return float(pc.mean(same).as_py() or 0.0) if pc.count(same).as_py() else nan


# --- a comparison of runs -------------------------------------------------------------------------


def by_domain(parts: Sequence[tuple[str, Pairs]]) -> dict[str, Pairs]:
    """The data sets of each domain as one."""
    names = dict.fromkeys(name for name, _ in parts)
    return {
        name: contrasts.pool([pairs for domain, pairs in parts if domain == name]) for name in names
    }


def shared(ours: Sequence[Run], theirs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """The runs of both sides that answered the same data, or its first questions (``limit``).

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
    """What decides a run's questions, but for how many of them were asked."""
    options = {key: value for key, value in run.options.items() if key != "limit"}
    return content_hash([run.task, run.split, options])


def _limits_differ(one: Run, other: Run) -> bool:
    return bool(one.options.get("limit") != other.options.get("limit"))


def pair(results: Results, mine: Run, other: Run) -> Pairs:
    """The questions of two runs side by side.

    Raises:
        ComparisonError: If one asked fewer, and those that both asked are not the same.
    """
    if mine.data != other.data:
        _require_same_questions(results, mine, other)
    return contrasts.pair(items(results, mine), items(results, other))


def _require_same_questions(results: Results, mine: Run, other: Run) -> None:
    names = ("sample_id", "question", "gold")
    asked = [
        {row["sample_id"]: row for row in results.columns(run, names).to_pylist()}
        for run in (mine, other)
    ]
    if any(asked[0][key] != asked[1][key] for key in asked[0].keys() & asked[1].keys()):
        raise ComparisonError(
            f"{_listed([mine, other])} differ in their limit, but also in what they asked first (another "
            "version of the data or of the task); compare runs of the same data."
        )


@dataclass(frozen=True, slots=True)
class Compared:
    """Stored runs, compared.

    Attributes:
        ours: The runs of A, with what they took.
        theirs: The runs of B, likewise.
        comparison: Verdicts by domain and pooled.
    """

    ours: tuple[Profile, ...]
    theirs: tuple[Profile, ...]
    comparison: Comparison


def compare_runs(results: Results, a: str, b: str, *, margin: float, alpha: float) -> Compared:
    """Compare two selections of stored runs on the data that both answered.

    Raises:
        ConfigError: If a selection means no run, or several of one data set.
        ComparisonError: If they have no question in common that both have a score for.
    """
    stored = results.all_runs()
    ours, theirs = select(stored, a), select(stored, b)
    parts = [(mine.domain, pair(results, mine, other)) for mine, other in shared(ours, theirs)]
    comparison = contrasts.compare(by_domain(parts), margin=margin, alpha=alpha)
    return Compared(
        tuple(profile(results, run, stored) for run in ours),
        tuple(profile(results, run, stored) for run in theirs),
        comparison,
    )
