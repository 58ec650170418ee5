"""The cards of trainings: how a weak model was made here, in ``models/NAME/card.json``.

A card is found by the name of its folder, because results folders are moved and copied. It names the
feedback runs that a preference training learned from.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import Any

from cowest_bench.store.files import FILE_NAME, file_stamp
from cowest_bench.store.records import Run
from cowest_bench.store.results import Results, Stored
from cowest_bench.store.selection import Singles

KINDS = ("sft", "dpo")


@dataclass(frozen=True, slots=True)
class Card:
    """A training, one of ``KINDS``, by the name of its folder. The values of its content are untrusted."""

    name: str
    kind: str
    content: Mapping[str, Any]
    stamp: str  # changes whenever the file does

    @property
    def feedback(self) -> dict[str, str]:
        """Ids of the runs that a preference training learned from: drafts, alone, judged."""
        found = self.content.get("feedback")
        given = found if isinstance(found, dict) else {}
        return {name: run for name, run in given.items() if isinstance(run, str)}


def read_card(path: Path, kinds: Collection[str] = KINDS) -> Card | None:
    """The card in a file; None if there is none, or none of these kinds."""
    try:
        stamp = file_stamp(path)
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("kind") not in kinds:
        return None
    return Card(path.parent.name, content["kind"], content, stamp)


def card_of(run: Run, folders: Iterable[Results]) -> Card | None:
    """The card of the training that made a run's weak model, if it is in one of the folders."""
    if run.weak is None or run.weak.card is None:
        return None
    name = PurePosixPath(run.weak.card.replace("\\", "/")).parent.name
    if not FILE_NAME.fullmatch(name):
        return None
    found = (read_card(folder.models / name / "card.json") for folder in folders)
    return next(filter(None, found), None)


def number(value: object) -> float | None:
    """A finite number, or None for anything else that an untrusted file may hold."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if isfinite(value) else None
    except OverflowError:
        return None


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
    """The feedback that a folder's cards name, and feedback that no training has used yet; each once.

    The latter goes with the newest run of its strong model alone that was graded alike.
    """
    by_id = {each.run.run_id: each for each in stored}
    cards = filter(None, map(read_card, sorted(results.models.glob("*/card.json"))))
    found = [feedback_of(card, by_id) for card in cards]
    alone = {
        graded: Singles([each.run for each in stored if each.run.graded == graded])
        for graded in (False, True)
    }
    for each in stored:
        if each.run.split != "feedback":
            continue
        singles = (alone[each.run.graded].of(each.run, name) for name in each.run.compared_with)
        strong = next((run for run in singles if run and [*run.models] == ["strong"]), None)
        found.append(Feedback(each, by_id[strong.run_id]) if strong else None)
    return distinct_feedback(filter(None, found))


def distinct_feedback(several: Iterable[Feedback]) -> list[Feedback]:
    """One for each run of drafts, with the evaluator's marks if there are any."""
    found: dict[str, Feedback] = {}
    for given in sorted(several, key=lambda given: given.judged is None):
        found.setdefault(given.drafts.run.run_id, given)
    return [*found.values()]
