"""What the tables ``runs``, ``gains`` and ``influences`` say, from the objects of ``analysis``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from cowest_bench.analysis import MARGIN, contrasts
from cowest_bench.analysis.contrasts import Contrast, Items, gain
from cowest_bench.analysis.feedback import Signal, influence
from cowest_bench.config import Role
from cowest_bench.errors import ConfigError
from cowest_bench.store import selection
from cowest_bench.store.cards import Card, Feedback
from cowest_bench.store.records import Entry, Run, SampleScore
from cowest_bench.store.results import Stored
from cowest_bench.store.suites import Place, shown
from cowest_bench.store.tables import TableRow

LOCAL_OPTIONS = ("data", "include_path")  # folders of a machine


@dataclass(frozen=True, slots=True)
class Measured:
    """A run with what was measured.

    Attributes:
        stored: The run, and where it is.
        place: Where its data set is shown.
        items: Its samples with their scores.
        row: Its row in the table ``runs``.
        card: Of the training that made its weak model.
    """

    stored: Stored
    place: Place
    items: Items
    row: TableRow
    card: Card | None

    @property
    def run(self) -> Run:
        """The run."""
        return self.stored.run


# --- runs -----------------------------------------------------------------------------------------


def run_row(run: Run, items: Items, *, texts: bool) -> TableRow:
    """What the table ``runs`` says of a run by itself; its score has a clustered 95% interval."""
    score = contrasts.score([items])
    copied = ("run_id", "score_id", "split", "data", "seed", "epochs", "graded", "attempts")
    return {
        **{name: getattr(run, name) for name in (*copied, "seconds", "created", "versions")},
        **{name: _shown(getattr(run, name)) for name in ("task", "system", "format", "control")},
        **{role: shown(spec.base_label) for role, spec in run.models.items()},
        **{f"{role}_checkpoint": shown(label) for role, label in run.labels.items()},
        "log": shown(run.log),
        "entry": Entry.of(run).id,
        "options": {key: run.options[key] for key in run.options if key not in LOCAL_OPTIONS},
        "n_samples": score.n_total,
        "score": score.mean.value,
        "low": score.mean.low,
        "high": score.mean.high,
        "metrics": {name: contrasts.finite(value) for name, value in run.metrics.items()},
        "identity": run.identity if texts else _without_prompts(run.identity),
        "prompts": _prompts(run.identity) if texts else None,
    }


def _shown(name: str | None) -> str | None:
    return name and shown(name)


def _prompts(identity: Mapping[str, Any]) -> object:
    """The templates that its models were asked with, if it has any of its own."""
    parts = (part for part in identity.values() if isinstance(part, dict))
    return next((part["prompts"] for part in parts if "prompts" in part), None)


def _without_prompts(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {key: part[key] for key in part if key != "prompts"}
        if isinstance(part, dict)
        else part
        for name, part in identity.items()
    }


# --- gains ----------------------------------------------------------------------------------------


def gain_rows(members: Sequence[Measured]) -> Iterator[TableRow]:
    """The table ``gains``, from runs of the same data set, oldest first."""
    for each in members:
        if each.run.compared_with:
            singles = singles_of(each, members)
            found = {name: [one.items] if one else None for name, one in singles.items()}
            runs = {f"{role_of(e.run)}_run": e.run.run_id for e in singles.values() if e}
            strong = strong_single(singles)
            yield {"run_id": each.run.run_id, **runs, **gain_columns([each.items], found, strong)}


def singles_of(each: Measured, members: Sequence[Measured]) -> dict[str, Measured | None]:
    """The runs, oldest first, in which a run's models answer alone, by system; None if not run."""
    known = {other.run.run_id: other for other in members}
    runs = [other.run for other in members]
    found = {name: selection.alone(each.run, name, runs) for name in each.run.compared_with}
    return {name: known[run.run_id] if run else None for name, run in found.items()}


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
    over = partial(gain, ours, margin=MARGIN)
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


# --- influences -----------------------------------------------------------------------------------


def influence_rows(given: Feedback) -> Iterator[TableRow]:
    """Δ of every scored draft, by every signal there is, as the method computes it.

    Raises:
        ComparisonError: If the rows of a run cannot be read.
    """
    without, drafts = _scores(given.alone), _scores(given.drafts)
    sides: list[tuple[Signal, list[SampleScore]]] = [("metric", drafts), ("logprob", drafts)]
    if given.judged:
        sides.append(("evaluator", _scores(given.judged)))
    for signal, rows in sides:
        with suppress(ConfigError):  # no log-probabilities were recorded
            for candidate in influence(rows, without, signal):
                yield {
                    "run_id": given.drafts.run.run_id,
                    "signal": signal,
                    "sample_id": candidate.sample_id,
                    "epoch": candidate.epoch,
                    "delta": candidate.influence,
                }


def _scores(each: Stored) -> list[SampleScore]:
    """A run's rows with the columns that influence is computed from."""
    names = ("sample_id", "epoch", "draft", "score", "gold_logprob")
    blank: TableRow = {"run_id": each.run.run_id, "cluster": None, "question": "", "gold": ""}
    rows = each.results.columns(each.run, names).to_pylist()
    return [SampleScore(**blank, **row) for row in rows]
