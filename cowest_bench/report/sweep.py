"""A sweep's matrix of gains and its Pareto front of score and cost, for people and machines.

Names of models, tasks and domains come from others: see ``tables``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from math import isnan, nan
from typing import Any

import numpy as np
from rich.text import Text

from cowest_bench.analysis import ALPHA, POOLED, contrasts, stats
from cowest_bench.analysis.contrasts import Contrast, Score
from cowest_bench.report.tables import Show, escaped, known, markdown_table, signed
from cowest_bench.store import Results, Run
from cowest_bench.store.comparison import StoredItems, profile
from cowest_bench.systems import find_system

SCHEMA_VERSION = 2

#: The finished run of a task, a weak and a strong model (by their places, None if the system has no
#: such model) and a system.
Found = Mapping[tuple[str, int | None, int | None, str], Run]


@dataclass(frozen=True, slots=True)
class Grid:
    """What a sweep crosses, by name; if a model is priced, systems are compared by dollars."""

    tasks: tuple[str, ...]
    weak: tuple[str, ...]
    strong: tuple[str, ...]
    systems: tuple[str, ...]
    priced: bool

    @property
    def collaborative(self) -> list[str]:
        """The systems that are compared with single ones."""
        return [name for name in dict.fromkeys(self.systems) if find_system(name).compared_with]


@dataclass(frozen=True, slots=True)
class MatrixCell:
    """A cell of the matrix: a collaboration over the better of its models alone (``best_single``).

    The contrast is that of ``cowest compare``, but ``p_holm`` is adjusted over all cells of the sweep.
    """

    domain: str  # or POOLED
    system: str
    weak: str
    strong: str
    best_single: str
    found: Contrast

    @property
    def significant(self) -> bool:
        """Whether it is a gain or a loss, adjusted for all cells."""
        return self.found.p_holm < ALPHA

    @property
    def undetectable(self) -> bool:
        """Whether it is neither, and smaller than what such a run detects with 80% power."""
        return not (self.significant or abs(self.found.difference.value) >= self.found.detectable)


@dataclass(frozen=True, slots=True)
class Point:
    """What a system scores and costs in a domain.

    The cost is that of a thousand samples in ``Summary.unit``, NaN if it is not known. On the front are
    systems that no other one beats: none scores as much for less, or more for as much.
    """

    domain: str
    system: str
    weak: str | None
    strong: str | None
    score: Score
    coverage: float
    cost: float
    on_front: bool
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a sweep has found: complete cells, pooled ones last, and all systems by domain and cost."""

    grid: Grid
    failed: Mapping[str, str]
    cells: tuple[MatrixCell, ...]
    points: tuple[Point, ...]
    damaged: tuple[str, ...]

    @property
    def unit(self) -> str:
        """``usd_per_1k`` if a model has a price, else ``seconds_per_1k``."""
        return "usd_per_1k" if self.grid.priced else "seconds_per_1k"


def summarise(grid: Grid, found: Found, failed: Mapping[str, str], results: Results) -> Summary:
    """The matrix and the front of a sweep's finished runs.

    A domain's cell is there when all its tasks are, a pooled one when all domains are. ``failed`` says
    what has no run, by name, and why.
    """
    stored = _Stored(grid, found, results)
    domains = _domains(grid, found)
    cells = [cell for domain, tasks in domains.items() for cell in _cells(stored, domain, tasks)]
    adjusted = stats.holm([cell.found.p for cell in cells])
    points = (_front([*_points(stored, domain, tasks)]) for domain, tasks in domains.items())
    return Summary(
        grid,
        failed,
        tuple(
            replace(cell, found=replace(cell.found, p_holm=float(p)))
            for cell, p in zip(cells, adjusted, strict=True)
        ),
        tuple(chain.from_iterable(points)),
        tuple(results.damaged),
    )


def _domains(grid: Grid, found: Found) -> dict[str, list[str]]:
    """The tasks of every domain, and of all of them; a task without any run has its own name."""
    named = {key[0]: run.domain for key, run in found.items()}
    domains: dict[str, list[str]] = {}
    for task in grid.tasks:
        domains.setdefault(named.get(task, task), []).append(task)
    return domains if len(domains) == 1 else {**domains, POOLED: [*chain(*domains.values())]}


class _Stored:
    """A sweep's runs by their places."""

    def __init__(self, grid: Grid, found: Found, results: Results) -> None:
        self.grid = grid
        self.items = StoredItems(results)
        self._found = found

    def runs(
        self, system: str, tasks: Sequence[str], weak: int | None, strong: int | None
    ) -> list[Run]:
        """Of a system on these tasks with these models; none unless all are there."""
        roles = find_system(system).roles
        place = (weak if "weak" in roles else None, strong if "strong" in roles else None)
        found = [self._found.get((task, *place, system)) for task in tasks]
        return [run for run in found if run] if all(found) else []

    def places(self, system: str) -> Iterator[tuple[int | None, int | None]]:
        """The models that a system is run with."""
        roles = find_system(system).roles
        weak = range(len(self.grid.weak)) if "weak" in roles else [None]
        strong = range(len(self.grid.strong)) if "strong" in roles else [None]
        return product(weak, strong)


def _cells(stored: _Stored, domain: str, tasks: Sequence[str]) -> Iterator[MatrixCell]:
    grid = stored.grid
    pairings = [*product(enumerate(grid.weak), enumerate(grid.strong))]
    for system in grid.collaborative:
        singles = find_system(system).compared_with
        for (i, weak), (j, strong) in pairings:
            ours, *alone = (
                stored.items.all_of(stored.runs(name, tasks, i, j)) for name in (system, *singles)
            )
            known = {name: items for name, items in zip(singles, alone, strict=True) if items}
            found = contrasts.gain(ours, known) if ours and len(known) == len(singles) else None
            if found:
                yield MatrixCell(domain, system, weak, strong, found.best, found.contrast)


def _points(stored: _Stored, domain: str, tasks: Sequence[str]) -> Iterator[Point]:
    grid = stored.grid
    for system in dict.fromkeys(grid.systems):
        for i, j in stored.places(system):
            runs = stored.runs(system, tasks, i, j)
            items = stored.items.all_of(runs)
            n_scored = [run.n_scored for run in runs]
            if not (items and any(n_scored)):
                continue
            costs = [_cost(stored, run) for run in runs]
            yield Point(
                domain,
                system,
                None if i is None else grid.weak[i],
                None if j is None else grid.strong[j],
                contrasts.score(items),
                sum(n_scored) / sum(run.n_total for run in runs),
                float(np.dot(costs, n_scored)) / sum(n_scored) if all(n_scored) else nan,
                False,
                tuple(runs),
            )


def _cost(stored: _Stored, run: Run) -> float:
    took = profile(stored.items, run, ())
    return took.usd_per_1k if stored.grid.priced else took.seconds_per_1k


def _front(points: Sequence[Point]) -> list[Point]:
    """The same points by cost; those that no other one beats are marked."""

    def beaten(one: Point) -> bool:
        return any(
            other.score.mean.value >= one.score.mean.value
            and other.cost <= one.cost
            and (other.score.mean.value, other.cost) != (one.score.mean.value, one.cost)
            for other in points
        )

    marked = [replace(one, on_front=not (isnan(one.cost) or beaten(one))) for one in points]
    return sorted(marked, key=lambda one: (isnan(one.cost), one.cost))


# --- tables ---------------------------------------------------------------------------------------


def matrix_rows(found: Summary, show: Show = str) -> list[dict[str, str | Text]]:
    """A line for each domain, system and weak model, a column for each strong one."""
    grid = found.grid
    cells = {(cell.domain, cell.system, cell.weak, cell.strong): cell for cell in found.cells}
    domains = dict.fromkeys(point.domain for point in found.points)
    return [
        {"domain": show(domain), "system": system, "weak": show(weak)}
        | {
            f"+ {show(strong)}": _text(cells.get((domain, system, weak, strong)))
            for strong in grid.strong
        }
        for domain in domains
        for system in grid.collaborative
        for weak in grid.weak
    ]


def _text(cell: MatrixCell | None) -> Text:
    if cell is None:
        return Text("")
    mark = "*" if cell.significant else "~" if cell.undetectable else " "
    return Text(signed(*cell.found.difference) + mark, style="dim" if cell.undetectable else "")


def front_rows(found: Summary, show: Show = str) -> list[dict[str, str]]:
    """A line for each system on the front, the cheapest of a domain first."""
    unit = {"usd_per_1k": "usd/1k", "seconds_per_1k": "s/1k"}[found.unit]
    return [
        {
            "domain": show(point.domain),
            "system": point.system,
            "weak": show(point.weak) if point.weak else "",
            "strong": show(point.strong) if point.strong else "",
            "score [95%]": "{:.3f} [{:.3f}, {:.3f}]".format(*point.score.mean),
            "n": f"{point.score.n:,}",
            "coverage": f"{point.coverage:.0%}",
            unit: known(point.cost, ".4f" if unit == "usd/1k" else ".1f"),
        }
        for point in found.points
        if point.on_front
    ]


def matrix_notes(found: Summary) -> list[str]:
    """How to read the tables, a sentence each."""
    told = {
        "usd_per_1k": "US dollars paid to endpoints per thousand samples",
        "seconds_per_1k": "the models' seconds, one after the other, per thousand samples",
    }
    unknown = sum(isnan(point.cost) for point in found.points)
    return [
        "cells: gain over the better of the pairing's models alone, with its own 95% interval",
        f"* p < {ALPHA:g} after Holm's adjustment for all {len(found.cells)} cells",
        "~ not significant, and smaller than what so many samples detect with 80% power",
        f"front: no other system scores more for less; cost: {told[found.unit]}, without training",
    ] + ([f"{unknown} systems have no known cost and are not on the front"] if unknown else [])


def markdown(found: Summary) -> str:
    """For a README or a pull request."""
    matrix = [
        {key: str(value).strip() for key, value in row.items()}
        for row in matrix_rows(found, escaped)
    ]
    tables = [markdown_table(rows) for rows in (matrix, front_rows(found, escaped)) if rows]
    return "\n\n".join([*tables, "\n".join(f"- {line}" for line in matrix_notes(found))])


def csv_rows(found: Summary) -> list[dict[str, Any]]:
    """A line for each cell of the matrix, with plain numbers."""
    return [_cell_json(cell) for cell in found.cells]


def as_json(found: Summary) -> dict[str, Any]:
    """What ``cowest sweep --format json`` prints (docs/sweep.md describes every field)."""
    grid = found.grid
    return {
        "schema_version": SCHEMA_VERSION,
        "alpha": ALPHA,
        "cells": len(found.cells),
        "weak": list(grid.weak),
        "strong": list(grid.strong),
        "matrix": csv_rows(found),
        "cost_unit": found.unit,
        "systems": [_point_json(point) for point in found.points],
        "failures": [{"name": name, "reason": reason} for name, reason in found.failed.items()],
        "damaged": list(found.damaged),
    }


def _cell_json(cell: MatrixCell) -> dict[str, Any]:
    found = cell.found
    return {
        "domain": cell.domain,
        "system": cell.system,
        "weak": cell.weak,
        "strong": cell.strong,
        "best_single": cell.best_single,
        "gain": found.difference.value,
        "low": contrasts.finite(found.difference.low),
        "high": contrasts.finite(found.difference.high),
        "p": found.p,
        "p_holm": found.p_holm,
        "significant": cell.significant,
        "detectable": contrasts.finite(found.detectable),
        "undetectable": cell.undetectable,
        "score": found.ours,
        "best_single_score": found.theirs,
        "n": found.n,
        "helped": found.helped,
        "hurt": found.hurt,
    }


def _point_json(point: Point) -> dict[str, Any]:
    return {
        "domain": point.domain,
        "system": point.system,
        "weak": point.weak,
        "strong": point.strong,
        "score": point.score.mean.value,
        "low": point.score.mean.low,
        "high": point.score.mean.high,
        "n": point.score.n,
        "coverage": point.coverage,
        "cost": contrasts.finite(point.cost),
        "on_front": point.on_front,
        "runs": [run.run_id for run in point.runs],
    }
