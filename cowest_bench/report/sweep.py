"""A sweep's matrix of gains and its Pareto front of score and cost, for people and machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import isnan, nan
from typing import Any

import numpy as np
from rich.text import Text

from cowest_bench.analysis import ALPHA, POOLED, contrasts, stats
from cowest_bench.analysis.contrasts import Items, finite
from cowest_bench.report import tables
from cowest_bench.report.tables import Record, Report, Row, Show
from cowest_bench.store import Results, Run
from cowest_bench.store.comparison import StoredItems, profile
from cowest_bench.systems import find_system

SCHEMA_VERSION = 2
UNITS = {  # a column's title and format, and what it is
    "usd_per_1k": ("usd/1k", ".4f", "US dollars paid to endpoints per thousand samples"),
    "seconds_per_1k": (
        "s/1k",
        ".1f",
        "the models' seconds, one after the other, per thousand samples",
    ),
}

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


def summarise(
    grid: Grid, found: Found, failed: Mapping[str, str], results: Results
) -> dict[str, Any]:
    """The matrix and the front of a sweep's finished runs, as JSON (docs/sweep.md says what is in it).

    A domain's cell is there when all its tasks are, a pooled one when all domains are. A contrast is
    that of ``cowest compare``, but ``p_holm`` is adjusted over all cells. ``failed`` says what has no
    run, by name, and why.
    """
    named = {key[0]: run.domain for key, run in found.items()}
    domains: dict[str, list[str]] = {}  # their tasks; one without any run has its own name
    for task in grid.tasks:
        domains.setdefault(named.get(task, task), []).append(task)
    if len(domains) > 1:
        domains[POOLED] = [task for tasks in domains.values() for task in tasks]
    stored = _Stored(grid, found, results)
    cells = [cell for domain, tasks in domains.items() for cell in stored.cells(domain, tasks)]
    for cell, p in zip(cells, stats.holm([cell["p"] for cell in cells]), strict=True):
        cell["p_holm"] = float(p)
        cell["significant"] = bool(p < ALPHA)
        # Neither a gain nor a loss, and smaller than what such a run detects with 80% power.
        seen = cell["detectable"] is not None and abs(cell["gain"]) >= cell["detectable"]
        cell["undetectable"] = not (cell["significant"] or seen)
    return {
        "schema_version": SCHEMA_VERSION,
        "alpha": ALPHA,
        "cells": len(cells),
        "weak": list(grid.weak),
        "strong": list(grid.strong),
        "matrix": cells,
        "cost_unit": stored.unit,
        "systems": [
            point for domain, tasks in domains.items() for point in stored.points(domain, tasks)
        ],
        "failures": [{"name": name, "reason": reason} for name, reason in failed.items()],
        "damaged": list(results.damaged),
    }


class _Stored:
    """A sweep's runs by their places."""

    def __init__(self, grid: Grid, found: Found, results: Results) -> None:
        self.grid = grid
        self.unit = "usd_per_1k" if grid.priced else "seconds_per_1k"
        self._found = found
        self._read = StoredItems(results)

    def _runs(
        self, system: str, tasks: Sequence[str], weak: int | None, strong: int | None
    ) -> list[Run]:
        """Of a system on these tasks with these models; none unless all are there."""
        roles = find_system(system).roles
        place = (weak if "weak" in roles else None, strong if "strong" in roles else None)
        found = [self._found.get((task, *place, system)) for task in tasks]
        return [run for run in found if run] if all(found) else []

    def _items(self, *of: Any) -> list[Items] | None:
        return self._read.all_of(self._runs(*of))

    def cells(self, domain: str, tasks: Sequence[str]) -> Iterator[Record]:
        """Each collaboration over the better of its models alone, where all of these are there."""
        pairings = [*product(enumerate(self.grid.weak), enumerate(self.grid.strong))]
        for system, ((i, weak), (j, strong)) in product(self.grid.collaborative, pairings):
            ours = self._items(system, tasks, i, j)
            names = find_system(system).compared_with
            singles = {name: self._items(name, tasks, i, j) for name in names}
            known = {name: items for name, items in singles.items() if items}
            gain = contrasts.gain(ours, known) if ours and len(known) == len(names) else None
            if gain:
                found = gain.contrast
                yield {
                    "domain": domain,
                    "system": system,
                    "weak": weak,
                    "strong": strong,
                    "best_single": gain.best,
                    **tables.estimate_json("gain", found.difference),
                    **tables.fields(found, "p", "p_holm"),
                    "significant": False,
                    **tables.fields(found, "detectable"),
                    "undetectable": False,
                    "score": found.ours,
                    "best_single_score": found.theirs,
                    **tables.fields(found, "n", "helped", "hurt"),
                }

    def points(self, domain: str, tasks: Sequence[str]) -> list[Record]:
        """What each system scores, and costs per thousand samples, the cheapest first.

        On the front are systems that no other one beats: none scores as much for less, or more for as
        much.
        """
        grid, points = self.grid, []
        for system in dict.fromkeys(grid.systems):
            roles = find_system(system).roles
            weak = range(len(grid.weak)) if "weak" in roles else [None]
            strong = range(len(grid.strong)) if "strong" in roles else [None]
            for i, j in product(weak, strong):
                runs = self._runs(system, tasks, i, j)
                items = self._read.all_of(runs)
                n_scored = [run.n_scored for run in runs]
                if not (items and any(n_scored)):
                    continue
                score = contrasts.score(items)
                costs = [getattr(profile(self._read, run, ()), self.unit) for run in runs]
                cost = float(np.dot(costs, n_scored)) / sum(n_scored) if all(n_scored) else nan
                point = {
                    "domain": domain,
                    "system": system,
                    "weak": None if i is None else grid.weak[i],
                    "strong": None if j is None else grid.strong[j],
                    **tables.estimate_json("score", score.mean),
                    "n": score.n,
                    "coverage": sum(n_scored) / sum(run.n_total for run in runs),
                    "cost": cost,
                    "on_front": False,
                    "runs": [run.run_id for run in runs],
                }
                points.append(point)

        def beaten(one: Record) -> bool:
            return any(
                other["score"] >= one["score"]
                and other["cost"] <= one["cost"]
                and (other["score"], other["cost"]) != (one["score"], one["cost"])
                for other in points
            )

        points.sort(key=lambda one: (isnan(one["cost"]), one["cost"]))
        marks = [not (isnan(one["cost"]) or beaten(one)) for one in points]
        return [
            one | {"cost": finite(one["cost"]), "on_front": mark}
            for one, mark in zip(points, marks, strict=True)
        ]


# --- for people -----------------------------------------------------------------------------------


def report(grid: Grid, summary: Mapping[str, Any]) -> Report:
    """What ``cowest sweep`` prints."""
    return Report(
        summary,
        tables=lambda show: [_matrix(grid, summary, show), _front(summary, show)],
        notes=lambda show: _notes(summary),
        records=summary["matrix"],
    )


def _matrix(grid: Grid, summary: Mapping[str, Any], show: Show) -> list[Row]:
    """A line for each domain, system and weak model, a column for each strong one."""
    places = ("domain", "system", "weak", "strong")
    cells = {tuple(cell[name] for name in places): cell for cell in summary["matrix"]}
    domains = dict.fromkeys(point["domain"] for point in summary["systems"])
    return [
        {"domain": show(domain), "system": system, "weak": show(weak)}
        | {
            f"+ {show(strong)}": _cell(cells.get((domain, system, weak, strong)))
            for strong in grid.strong
        }
        for domain, system, weak in product(domains, grid.collaborative, grid.weak)
    ]


def _cell(cell: Record | None) -> Text:
    if cell is None:
        return Text("")
    mark = "*" if cell["significant"] else "~" if cell["undetectable"] else " "
    return Text(tables.interval(cell, "gain") + mark, style="dim" if cell["undetectable"] else "")


def _front(summary: Mapping[str, Any], show: Show) -> list[Row]:
    """A line for each system on the front, the cheapest of a domain first."""
    unit, form, _ = UNITS[summary["cost_unit"]]
    return [
        {
            "domain": show(point["domain"]),
            "system": point["system"],
            **{role: show(point[role]) if point[role] else "" for role in ("weak", "strong")},
            "score [95%]": tables.interval(point, "score", ".3f"),
            "n": f"{point['n']:,}",
            "coverage": f"{point['coverage']:.0%}",
            unit: tables.known(point["cost"], form),
        }
        for point in summary["systems"]
        if point["on_front"]
    ]


def _notes(summary: Mapping[str, Any]) -> Iterator[str]:
    """How to read the tables, a sentence each."""
    _, _, cost = UNITS[summary["cost_unit"]]
    yield "cells: gain over the better of the pairing's models alone, with its own 95% interval"
    yield f"* p < {ALPHA:g} after Holm's adjustment for all {summary['cells']} cells"
    yield "~ not significant, and smaller than what so many samples detect with 80% power"
    yield f"front: no other system scores more for less; cost: {cost}, without training"
    if unknown := sum(point["cost"] is None for point in summary["systems"]):
        yield f"{unknown} systems have no known cost and are not on the front"
