"""The cards of trainings: how a weak model was made here, in ``models/NAME/card.json``.

A card is found by the name of its folder, because results folders are moved and copied. It names the
feedback runs that a preference training learned from.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cowest_bench.store.files import FILE_NAME
from cowest_bench.store.records import Run
from cowest_bench.store.results import Results, Stored
from cowest_bench.store.selection import alone

KINDS = ("sft", "dpo")


@dataclass(frozen=True, slots=True)
class Card:
    """A training, one of ``KINDS``, by the name of its folder. The values of its content are untrusted."""

    name: str
    kind: str
    content: Mapping[str, Any]
    path: Path

    @property
    def feedback(self) -> dict[str, str]:
        """Ids of the runs that a preference training learned from: drafts, alone, judged."""
        found = self.content.get("feedback")
        given = found if isinstance(found, dict) else {}
        return {name: run for name, run in given.items() if isinstance(run, str)}


def read_card(path: Path, kinds: Collection[str] = KINDS) -> Card | None:
    """The card in a file; None if there is none, or none of these kinds."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("kind") not in kinds:
        return None
    return Card(path.parent.name, content["kind"], content, path)


def card_of(run: Run, folders: Iterable[Results]) -> Card | None:
    """The card of the training that made a run's weak model, if it is in one of the folders."""
    if run.weak is None or run.weak.card is None:
        return None
    name = PurePosixPath(run.weak.card.replace("\\", "/")).parent.name
    if not FILE_NAME.fullmatch(name):
        return None
    found = (read_card(folder.models / name / "card.json") for folder in folders)
    return next(filter(None, found), None)


# --- feedback -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Feedback:
    """The runs that preference pairs come from: answers with drafts, those of the strong model alone to
    the same samples, and the evaluator's marks of both, if there are any.
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


def all_feedback(stored: Sequence[Stored], results: Results) -> list[Feedback]:
    """The feedback that a folder's cards name, and feedback that no training has used yet; each once."""
    by_id = {each.run.run_id: each for each in stored}
    cards = filter(None, map(read_card, sorted(results.models.glob("*/card.json"))))
    named = [feedback_of(card, by_id) for card in cards]
    return distinct_feedback(filter(None, [*named, *(_unused(each, by_id) for each in stored)]))


def distinct_feedback(several: Iterable[Feedback]) -> list[Feedback]:
    """One for each run of drafts, with the evaluator's marks if there are any."""
    found: dict[str, Feedback] = {}
    for given in sorted(several, key=lambda given: given.judged is None):
        found.setdefault(given.drafts.run.run_id, given)
    return [*found.values()]


def _unused(each: Stored, stored: Mapping[str, Stored]) -> Feedback | None:
    """A feedback run with the newest run of its strong model alone that was graded alike."""
    run = each.run
    if run.split != "feedback":
        return None
    alike = [other.run for other in stored.values() if other.run.graded == run.graded]
    singles = (alone(run, name, alike) for name in run.compared_with)
    strong = next((single for single in singles if single and [*single.models] == ["strong"]), None)
    return Feedback(each, stored[strong.run_id]) if strong else None
