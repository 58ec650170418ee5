"""What a plan takes: calls, tokens, cost, time, and the differences that it could detect."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from cowest_bench.analysis.planning import detectable_difference
from cowest_bench.errors import printable
from cowest_bench.lab.planned import Estimate

DISCORDANCE = 0.3  # assumed before a run: the share of samples that only one of two gets right


def summarise_plan(estimates: Sequence[Estimate], rate: float, split: str) -> dict[str, Any]:
    """What a plan takes, as JSON: evaluations, totals by role, cost, time and detectable effects.

    Args:
        estimates: What ``lab.planned.estimate`` says of its evaluations.
        rate: Calls a second.
        split: The split that systems are compared on.
    """
    finished = sum(not each.answers for each in estimates)
    estimates = [each for each in estimates if each.answers]
    calls: Counter[str] = Counter()
    tokens: dict[str, dict[str, float]] = defaultdict(lambda: {"input": 0.0, "output": 0.0})
    unpriced = []
    for each in estimates:
        calls.update(each.calls)
        for role, spec in each.models.items():
            tokens[role]["input"] += each.input_tokens[role]
            tokens[role]["output"] += each.output_tokens[role]
            if not (spec.price or spec.is_free):
                unpriced.append(str(role))
    return {
        "evaluations": [_evaluation(each) for each in estimates],
        "finished": finished,
        "calls": dict(calls),
        "tokens": dict(tokens),
        "cost": None if unpriced else sum(each.cost for each in estimates),
        "unpriced": [*dict.fromkeys(unpriced)],
        "measured": all(each.measured for each in estimates),
        "seconds": sum(calls.values()) / rate,
        "rate": rate,
        "detectable": {
            each.step.task.name: detectable_difference(each.samples, DISCORDANCE)
            for each in estimates
            if each.step.task.split == split
        },
    }


def _evaluation(each: Estimate) -> dict[str, Any]:
    step = each.step
    return {
        "task": step.task.name,
        "split": step.task.split,
        "system": step.system.name,
        "models": {role: spec.label for role, spec in each.models.items()},
        "samples": each.samples,
        "answers": each.answers,
        "calls": each.calls,
        "at_most": each.at_most,
        "cost": each.cost,
        "basis": each.basis,
    }


def plan_table(summary: Mapping[str, Any]) -> Table:
    """The evaluations of a plan, for a terminal; dev evaluations of one training are one line."""
    table = Table(box=box.SIMPLE_HEAD)
    roles = list(summary["calls"])
    lines = _grouped(summary["evaluations"])
    systems = {(each["system"], *each["models"].values()) for each in lines}
    several = len(systems) > len({name for name, *_ in systems})  # models of one system
    for column in ("task", "split", "system", *(["models"] if several else [])):
        table.add_column(column, no_wrap=True)
    for column in ("samples", *(f"{role} calls" for role in roles), "usd"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in lines:
        at_most = "<=" if each["at_most"] else ""
        calls = [f"{at_most}{each['calls'][r]:,}" if r in each["calls"] else "" for r in roles]
        table.add_row(
            each["task"],
            each["split"],
            each["system"],
            *([Text(printable(" + ".join(each["models"].values())))] if several else []),
            f"{each['samples']:,}",
            *calls,
            f"{each['cost']:.2f}",
        )
    return table


def _grouped(evaluations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Evaluations of the same task, split, system and models that follow each other, as one."""
    lines: list[dict[str, Any]] = []
    same = ("task", "split", "system", "models")
    for each in evaluations:
        if lines and all(lines[-1][key] == each[key] for key in same):
            last = lines[-1]
            last["calls"] = dict(Counter(last["calls"]) + Counter(each["calls"]))
            last["cost"] += each["cost"]
            last["at_most"] |= each["at_most"]
        else:
            lines.append(dict(each))
    return lines


def plan_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """The totals of a plan, a line each."""
    if summary["finished"]:
        yield f"{summary['finished']} evaluations are finished and are not asked again"
    if not summary["evaluations"]:
        yield "nothing is left to ask"
        return
    for role, calls in summary["calls"].items():
        tokens = summary["tokens"][role]
        yield f"{role}: {calls:,} calls, {tokens['input']:,.0f} tokens in, {tokens['output']:,.0f} out"
    if summary["unpriced"]:
        names = " and ".join(summary["unpriced"])
        yield f"cost: not known; the {names} model has no price (price: in the plan, or an option)"
    elif summary["measured"] or not summary["cost"]:
        yield f"cost: {summary['cost']:.2f} usd paid to endpoints"
    else:
        yield f"cost: about {summary['cost']:.2f} usd if all answers are at their longest; after a trial"
        yield "      (--limit 20) the estimate uses the lengths measured there"
    for basis in dict.fromkeys(each["basis"] for each in summary["evaluations"]):
        yield f"basis: {basis}"
    yield f"time: {summary['seconds'] / 3600:.1f} h at {summary['rate']:g} calls a second, plus training"
    for task, effect in summary["detectable"].items():
        yield (
            f"{task}: a difference of {effect:.3f} is found with 80% power, "
            f"if only one of two systems is right on {DISCORDANCE:.0%} of the samples"
        )
