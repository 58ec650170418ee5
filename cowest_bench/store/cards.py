"""The cards of trainings: how a weak model was made here, in ``models/NAME/card.json``.

A card is found by the name of its folder, because results folders are moved and copied.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import Any

from cowest_bench.store.records import Run
from cowest_bench.store.results import Results
from cowest_bench.store.suites import FILE_NAME

KINDS = ("sft", "dpo")


@dataclass(frozen=True, slots=True)
class Card:
    """A training.

    Attributes:
        name: Name of its folder.
        kind: One of ``KINDS``.
        content: What it was made from, and how it went. Its values are untrusted.
        path: The file.
    """

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


def all_cards(folders: Sequence[Results]) -> list[Card]:
    """Every card that can be read, by name."""
    paths = (path for folder in folders for path in folder.models.glob("*/card.json"))
    known = {card.name: card for card in filter(None, map(read_card, paths))}
    return [known[name] for name in sorted(known)]


def number(value: object) -> float | None:
    """A finite number, or None for anything else that an untrusted file may hold."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if isfinite(value) else None
    except OverflowError:
        return None
