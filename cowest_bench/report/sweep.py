"""A sweep's matrix of gains and its Pareto front of score and cost, for people and machines.

Names of models, tasks and domains come from elsewhere: see ``compare_report``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from math import isnan, nan
from typing import Any

import numpy as np
from rich.text import Text

from cowest_bench.analysis import contrasts, stats
from cowest_bench.analysis.contrasts import Contrast, Items
from cowest_bench.report.comparison import Show, escaped
from cowest_bench.report.results import POOLED, markdown_table, signed
from cowest_bench.store import Results, Run, selection
from cowest_bench.sweep import Key, Outcome, Sweep
from cowest_bench.systems import find_system

SCHEMA_VERSION = 1
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Gain:
    """A cell of the matrix: a collaboration over the better of its two models.

    Attributes:
        domain: Or ``pooled``.
        system: ``collab`` or ``collab-tuned``.
        weak: Name of the weak model.
        strong: Name of the strong model.
        best_single: ``weak`` or ``strong``: which alone scores higher on the questions that all three
            have scores for.
        found: The collaboration against that one, as ``cowest compare`` finds it; ``p_holm`` is
            adjusted over all cells of the sweep.
    """

    domain: str
    system: str
    weak: str
    strong: str
    best_single: str
    found: Contrast

    @property
    def significant(self) -> bool:
        """Whether it is a gain or a loss, with all cells in view."""
        return self.found.p_holm < ALPHA

    @property
    def undetectable(self) -> bool:
        """Whether it is neither, and smaller than what such a run finds with 80% power."""
        return not (self.significant or abs(self.found.difference.value) >= self.found.detectable)


@dataclass(frozen=True, slots=True)
class Point:
    """What a system scores and costs.

    Attributes:
        domain: Or ``pooled``.
        system: Its name.
        weak: Name of its weak model, if it has one.
        strong: Name of its strong model, if it has one.
        score: Mean over the questions that have a score, with a 95% interval.
        n: How many have one.
        coverage: Share of all.
        cost: Of a thousand questions, in ``Summary.unit``; NaN if it is not known.
        on_front: Whether no other system scores as much for less, or more for as much.
        runs: Its runs.
    """

    domain: str
    system: str
    weak: str | None
    strong: str | None
    score: stats.Estimate
    n: int
    coverage: float
    cost: float
    on_front: bool
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a sweep has found.

    Attributes:
        sweep: What was asked for.
        failed: Which jobs have no runs, and why.
        gains: The cells of the matrix that are complete, pooled ones last.
        points: All systems, by domain and cost.
        unit: ``usd_per_1k`` where a model has a price, else ``seconds_per_1k``.
    """

    sweep: Sweep
    failed: dict[Key, str]
    gains: tuple[Gain, ...]
    points: tuple[Point, ...]
    unit: str


def summarise(sweep: Sweep, outcome: Outcome, results: Results) -> Summary:
    """The matrix and the front of a sweep's finished runs.

    A domain's cell is there when all its tasks are, a pooled one when all domains are.
    """
    stored = _Stored(sweep, outcome, results)
    domains = _domains(outcome)
    gains = [gain for domain, tasks in domains.items() for gain in _gains(stored, domain, tasks)]
    adjusted = stats.holm([gain.found.p for gain in gains])
    priced = any(spec.price for spec in (*sweep.weak, *sweep.strong))
    unit = "usd_per_1k" if priced else "seconds_per_1k"
    return Summary(
        sweep,
        outcome.failed,
        tuple(
            replace(gain, found=replace(gain.found, p_holm=float(p)))
            for gain, p in zip(gains, adjusted, strict=True)
        ),
        tuple(
            point
            for domain, tasks in domains.items()
            for point in _front([*_points(stored, domain, tasks, unit)])
        ),
        unit,
    )


def _domains(outcome: Outcome) -> dict[str, list[str]]:
    """The tasks of every domain, and of all of them; a task without any run has its own name."""
    named = {key[0]: run.domain for key, runs in outcome.done.items() for run in runs.values()}
    domains: dict[str, list[str]] = {}
    for task in dict.fromkeys(key[0] for key in (*outcome.done, *outcome.failed)):
        domains.setdefault(named.get(task, task), []).append(task)
    return domains if len(domains) == 1 else {**domains, POOLED: [*chain(*domains.values())]}


class _Stored:
    """A sweep's runs, with the questions of each read once."""

    def __init__(self, sweep: Sweep, outcome: Outcome, results: Results) -> None:
        self.sweep = sweep
        self.results = results
        self._done = outcome.done
        self._items: dict[str, Items] = {}

    def runs(
        self, system: str, tasks: Sequence[str], weak: int | None, strong: int | None
    ) -> list[Run]:
        """Of a system on these tasks with models by their places; none unless all are there."""
        roles = find_system(system).roles
        place = (weak if "weak" in roles else None, strong if "strong" in roles else None)
        found = [self._done.get((task, *place), {}).get(system) for task in tasks]
        return [run for run in found if run] if all(found) else []

    def items(self, run: Run) -> Items:
        """Its questions."""
        if run.run_id not in self._items:
            self._items[run.run_id] = selection.items(self.results, run)
        return self._items[run.run_id]


def _gains(stored: _Stored, domain: str, tasks: Sequence[str]) -> Iterator[Gain]:
    sweep = stored.sweep
    for system in sweep.collaborative:
        for i, weak in enumerate(sweep.weak_names):
            for j, strong in enumerate(sweep.strong_names):
                three = [stored.runs(name, tasks, i, j) for name in (system, "weak", "strong")]
                found = _gain(*([stored.items(run) for run in runs] for runs in three))
                if found:
                    yield Gain(domain, system, weak, strong, *found)


def _gain(
    collab: Sequence[Items], weak: Sequence[Items], strong: Sequence[Items]
) -> tuple[str, Contrast] | None:
    """Which single model is the better one, and the collaboration against it; by data set."""
    if not (collab and weak and strong):
        return None
    parts = [contrasts.common_scores(*each) for each in zip(weak, strong, collab, strict=True)]
    common = np.concatenate(parts, axis=1)
    if not common.size:
        return None
    best, alone = ("strong", strong) if common[1].mean() > common[0].mean() else ("weak", weak)
    pairs = [contrasts.pair(*each) for each in zip(collab, alone, strict=True)]
    return best, contrasts.contrast(contrasts.pool(pairs), margin=0, alpha=ALPHA)


def _points(stored: _Stored, domain: str, tasks: Sequence[str], unit: str) -> Iterator[Point]:
    sweep = stored.sweep
    weak, strong = range(len(sweep.weak)), range(len(sweep.strong))
    alone: dict[str, list[tuple[int | None, int | None]]] = {
        "weak": [(i, None) for i in weak],
        "strong": [(None, j) for j in strong],
    }
    for system in dict.fromkeys(sweep.systems):
        for i, j in alone.get(system, [*product(weak, strong)]):
            runs = stored.runs(system, tasks, i, j)
            n_scored = [run.n_scored for run in runs]
            if not any(n_scored):
                continue
            questions = contrasts.pool([contrasts.pair(*[stored.items(run)] * 2) for run in runs])
            scored = questions.scored
            costs = [getattr(selection.profile(stored.results, run, ()), unit) for run in runs]
            yield Point(
                domain,
                system,
                None if i is None else sweep.weak_names[i],
                None if j is None else sweep.strong_names[j],
                stats.mean_interval(questions.ours[scored], questions.clusters[scored], ALPHA),
                int(scored.sum()),
                sum(n_scored) / sum(run.n_total for run in runs),
                float(np.dot(costs, n_scored)) / sum(n_scored) if all(n_scored) else nan,
                False,
                tuple(runs),
            )


def _front(points: Sequence[Point]) -> list[Point]:
    """The same by cost, with those marked that no other one beats."""

    def beaten(one: Point) -> bool:
        return any(
            other.score.value >= one.score.value
            and other.cost <= one.cost
            and (other.score.value, other.cost) != (one.score.value, one.cost)
            for other in points
        )

    marked = [replace(one, on_front=not (isnan(one.cost) or beaten(one))) for one in points]
    return sorted(marked, key=lambda one: (isnan(one.cost), one.cost))


# --- tables ---------------------------------------------------------------------------------------


def matrix_rows(found: Summary, show: Show = str) -> list[dict[str, str | Text]]:
    """A line for each domain, system and weak model, a column for each strong one."""
    sweep = found.sweep
    cells = {(g.domain, g.system, g.weak, g.strong): g for g in found.gains}
    domains = dict.fromkeys(point.domain for point in found.points)
    return [
        {"domain": show(domain), "system": system, "weak": show(weak)}
        | {
            f"+ {show(strong)}": _cell(cells.get((domain, system, weak, strong)))
            for strong in sweep.strong_names
        }
        for domain in domains
        for system in sweep.collaborative
        for weak in sweep.weak_names
    ]


def _cell(gain: Gain | None) -> Text:
    if gain is None:
        return Text("")
    mark = "*" if gain.significant else "~" if gain.undetectable else " "
    return Text(signed(*gain.found.difference) + mark, style="dim" if gain.undetectable else "")


def front_rows(found: Summary, show: Show = str) -> list[dict[str, str]]:
    """A line for each system on the front, the cheapest of a domain first."""
    unit = {"usd_per_1k": "usd/1k", "seconds_per_1k": "s/1k"}[found.unit]
    return [
        {
            "domain": show(point.domain),
            "system": point.system,
            "weak": show(point.weak) if point.weak else "",
            "strong": show(point.strong) if point.strong else "",
            "score [95%]": "{:.3f} [{:.3f}, {:.3f}]".format(*point.score),
            "n": f"{point.n:,}",
            "coverage": f"{point.coverage:.0%}",
            unit: f"{point.cost:.4f}" if unit == "usd/1k" else f"{point.cost:.1f}",
        }
        for point in found.points
        if point.on_front
    ]


def notes(found: Summary) -> list[str]:
    """How the tables are to be read, a sentence each."""
    told = {
        "usd_per_1k": "US dollars paid to endpoints for a thousand questions",
        "seconds_per_1k": "the models' seconds, one after the other, for a thousand questions",
    }
    unknown = sum(isnan(point.cost) for point in found.points)
    return [
        "cells: gain over the better of the pairing's two models alone, with its own 95% interval",
        f"* p < {ALPHA:g} after Holm over all {len(found.gains)} cells",
        "~ not significant, and smaller than what so many questions find with 80% power",
        f"front: no other system scores more for less; cost: {told[found.unit]}, without training",
    ] + ([f"{unknown} systems have no known cost and are not on the front"] if unknown else [])


def markdown(found: Summary) -> str:
    """For a README or a pull request."""
    matrix = [
        {key: str(value).strip() for key, value in row.items()}
        for row in matrix_rows(found, escaped)
    ]
    tables = [markdown_table(rows) for rows in (matrix, front_rows(found, escaped)) if rows]
    return "\n\n".join([*tables, "\n".join(f"- {line}" for line in notes(found))])


def csv_rows(found: Summary) -> list[dict[str, Any]]:
    """A line for each cell of the matrix, with plain numbers."""
    return [_gain_json(gain) for gain in found.gains]


def as_json(found: Summary) -> dict[str, Any]:
    """What ``cowest sweep --format json`` prints (docs/sweep.md says what every field is)."""
    sweep = found.sweep
    return {
        "schema_version": SCHEMA_VERSION,
        "alpha": ALPHA,
        "cells": len(found.gains),
        "weak": list(sweep.weak_names),
        "strong": list(sweep.strong_names),
        "matrix": [_gain_json(gain) for gain in found.gains],
        "cost_unit": found.unit,
        "systems": [_point_json(point) for point in found.points],
        "failures": [
            {
                "task": task,
                "weak": None if weak is None else sweep.weak_names[weak],
                "strong": None if strong is None else sweep.strong_names[strong],
                "reason": reason,
            }
            for (task, weak, strong), reason in found.failed.items()
        ],
    }


def _gain_json(gain: Gain) -> dict[str, Any]:
    found = gain.found
    return {
        "domain": gain.domain,
        "system": gain.system,
        "weak": gain.weak,
        "strong": gain.strong,
        "best_single": gain.best_single,
        "gain": found.difference.value,
        "low": contrasts.finite(found.difference.low),
        "high": contrasts.finite(found.difference.high),
        "p": found.p,
        "p_holm": found.p_holm,
        "significant": gain.significant,
        "detectable": contrasts.finite(found.detectable),
        "undetectable": gain.undetectable,
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
        "score": point.score.value,
        "low": point.score.low,
        "high": point.score.high,
        "n": point.n,
        "coverage": point.coverage,
        "cost": contrasts.finite(point.cost),
        "on_front": point.on_front,
        "runs": [run.run_id for run in point.runs],
    }
