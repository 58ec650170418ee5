"""Stored runs, and what was measured of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cowest_bench.analysis.contrasts import Items
from cowest_bench.store.cards import Card
from cowest_bench.store.records import Run
from cowest_bench.store.results import Results
from cowest_bench.store.suites import Place
from cowest_bench.store.tables import TableRow


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


def oldest_first(runs: Iterable[Run]) -> list[Run]:
    """By when they were made."""
    return sorted(runs, key=lambda run: (run.created, run.run_id))
