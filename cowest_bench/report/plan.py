"""What a plan will take: calls, tokens, cost, time, and the differences it can detect."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from cowest_bench.analysis.planning import detectable_difference
from cowest_bench.errors import printable

if TYPE_CHECKING:
    from cowest_bench.plan import Estimate, Plan

DISCORDANCE = 0.3  # assumed before a run: the share of questions that only one of two gets right


def summarise_plan(cells: Sequence[tuple[Plan, Estimate]], rate: float) -> dict[str, Any]:
    """What plans will take, as JSON: cells, totals by role, cost, time and detectable effects.

    Args:
        cells: What ``plan.estimate`` made of them, each with its plan.
        rate: Calls a second.
    """
    calls: Counter[str] = Counter()
    tokens: dict[str, dict[str, float]] = defaultdict(lambda: {"input": 0.0, "output": 0.0})
    for _, cell in cells:
        calls.update(cell.calls)
        for role in cell.calls:
            tokens[role]["input"] += cell.input_tokens[role]
            tokens[role]["output"] += cell.output_tokens[role]
    asked = [
        (role, spec)
        for plan, cell in cells
        for role, spec in plan.models.items()
        if role in cell.calls
    ]
    dear = {role for role, spec in asked if not (spec.price or spec.is_free)}
    unpriced = [role for role in calls if role in dear]
    return {
        "cells": [
            {
                "task": cell.task,
                "split": cell.split,
                "system": cell.system,
                "models": {
                    role: spec.label for role, spec in plan.models.items() if role in cell.calls
                },
                "questions": cell.questions,
                "calls": cell.calls,
                "at_most": cell.at_most,
                "cost": cell.cost(plan),
                "basis": cell.basis,
            }
            for plan, cell in cells
        ],
        "calls": dict(calls),
        "tokens": dict(tokens),
        "cost": None if unpriced else sum(cell.cost(plan) for plan, cell in cells),
        "unpriced": unpriced,
        "measured": all(cell.measured for _, cell in cells),
        "seconds": sum(calls.values()) / rate,
        "rate": rate,
        "detectable": {
            cell.task: detectable_difference(cell.questions, DISCORDANCE)
            for plan, cell in cells
            if cell.split == plan.split
        },
    }


def plan_table(summary: Mapping[str, Any]) -> Table:
    """The cells of a plan, for a terminal."""
    table = Table(box=box.SIMPLE_HEAD)
    roles = list(summary["calls"])
    systems = {(cell["system"], *cell["models"].values()) for cell in summary["cells"]}
    several = len(systems) > len({name for name, *_ in systems})  # models of one system
    for column in ("task", "split", "system", *(["models"] if several else [])):
        table.add_column(column, no_wrap=True)
    for column in ("questions", *(f"{role} calls" for role in roles), "usd"):
        table.add_column(column, justify="right", no_wrap=True)
    for cell in summary["cells"]:
        at_most = "<=" if cell["at_most"] else ""
        calls = [f"{at_most}{cell['calls'][r]:,}" if r in cell["calls"] else "" for r in roles]
        table.add_row(
            cell["task"],
            cell["split"],
            cell["system"],
            *([Text(printable(" + ".join(cell["models"].values())))] if several else []),
            f"{cell['questions']:,}",
            *calls,
            f"{cell['cost']:.2f}",
        )
    return table


def plan_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """The totals of a plan, a line each."""
    for role, calls in summary["calls"].items():
        tokens = summary["tokens"][role]
        yield f"{role}: {calls:,} calls, {tokens['input']:,.0f} tokens in, {tokens['output']:,.0f} out"
    if summary["unpriced"]:
        names = " and ".join(summary["unpriced"])
        yield f"cost: not known; the {names} model has no price (price: in the plan, or an option)"
    elif summary["measured"] or not summary["cost"]:
        yield f"cost: {summary['cost']:.2f} usd paid to endpoints"
    else:
        yield f"cost: about {summary['cost']:.2f} usd if all answers were at their longest; after a trial"
        yield "      (--limit 20) the estimate takes the lengths that were measured there"
    for basis in dict.fromkeys(cell["basis"] for cell in summary["cells"]):
        yield f"basis: {basis}"
    yield f"time: {summary['seconds'] / 3600:.1f} h at {summary['rate']:g} calls a second, and training"
    for task, effect in summary["detectable"].items():
        yield (
            f"{task}: a difference of {effect:.3f} is found with 80% power, "
            f"if only one of two systems is right on {DISCORDANCE:.0%} of the questions"
        )
