"""The table ``influences``: what every draft of a feedback run did to the strong model's answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cowest_bench.errors import ConfigError
from cowest_bench.store.cards import Card
from cowest_bench.store.gain_rows import role_of, single_run
from cowest_bench.store.measured import Stored
from cowest_bench.store.records import SampleScore
from cowest_bench.store.tables import TableRow

if TYPE_CHECKING:
    from cowest_bench.analysis.feedback import Signal


@dataclass(frozen=True, slots=True)
class Feedback:
    """The runs that preference pairs come from.

    Attributes:
        drafts: Answers with drafts.
        alone: Answers of the strong model to the same samples.
        judged: The evaluator's marks of both, if there are any.
    """

    drafts: Stored
    alone: Stored
    judged: Stored | None = None


def feedback_of(card: Card, stored: Mapping[str, Stored]) -> Feedback | None:
    """The feedback that a training's card names, if its runs are stored (by id)."""
    drafts, without, judged = (
        stored.get(card.feedback.get(name, "")) for name in ("drafts", "alone", "judged")
    )
    return Feedback(drafts, without, judged) if drafts and without else None


def all_feedback(stored: Sequence[Stored], cards: Iterable[Card]) -> list[Feedback]:
    """The feedback that cards name, and feedback that no training has used yet; each once."""
    by_id = {each.run.run_id: each for each in stored}
    named = [given for card in cards if (given := feedback_of(card, by_id))]
    return distinct_feedback([*named, *filter(None, (_unused(each, stored) for each in stored))])


def distinct_feedback(several: Iterable[Feedback]) -> list[Feedback]:
    """One for each run of drafts, with the evaluator's marks if there are any."""
    found: dict[str, Feedback] = {}
    for given in sorted(several, key=lambda given: given.judged is None):
        found.setdefault(given.drafts.run.run_id, given)
    return [*found.values()]


def _unused(each: Stored, stored: Sequence[Stored]) -> Feedback | None:
    """A feedback run with the newest run of its strong model alone that was graded alike."""
    if each.run.split != "feedback" or not each.run.compared_with:
        return None
    known = {e.run.run_id: e for e in stored if e.run.graded == each.run.graded}
    runs = [e.run for e in known.values()]
    singles = (single_run(each.run, name, runs) for name in each.run.compared_with)
    strong = next((run for run in singles if run and role_of(run) == "strong"), None)
    return Feedback(each, known[strong.run_id]) if strong else None


def influence_rows(given: Feedback) -> Iterator[TableRow]:
    """Δ of every scored draft, by every signal there is, as the method computes it.

    Raises:
        ComparisonError: If the rows of a run cannot be read.
    """
    from cowest_bench.analysis.feedback import influence

    without = _scores(given.alone)
    sides: list[tuple[Signal, Stored]] = [("metric", given.drafts), ("logprob", given.drafts)]
    if given.judged:
        sides.append(("evaluator", given.judged))
    for signal, of in sides:
        by_epoch: dict[int, list[SampleScore]] = defaultdict(list)
        for row in _scores(of):
            by_epoch[row.epoch].append(row)
        for epoch, rows in sorted(by_epoch.items()):
            with suppress(ConfigError):  # no log-probabilities were recorded
                for candidate in influence(rows, without, signal):
                    yield {
                        "run_id": given.drafts.run.run_id,
                        "signal": signal,
                        "sample_id": candidate.sample_id,
                        "epoch": epoch,
                        "delta": candidate.influence,
                    }


def _scores(each: Stored) -> list[SampleScore]:
    """A run's rows with the columns that influence is computed from."""
    names = ("sample_id", "epoch", "draft", "score", "gold_logprob")
    blank: TableRow = {"run_id": each.run.run_id, "cluster": None, "question": "", "gold": ""}
    rows = each.results.columns(each.run, names).to_pylist()
    return [SampleScore(**blank, **row) for row in rows]
