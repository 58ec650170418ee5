"""What a plan takes: calls, tokens, cost, time, and the differences that it could detect."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cowest_bench.analysis.contrasts import finite
from cowest_bench.analysis.planning import detectable_difference
from cowest_bench.lab.planned import Forecast
from cowest_bench.report.tables import Record, Report, Row, fields

DISCORDANCE = 0.3  # assumed before a run: the share of samples that only one of two gets right


def plan_report(forecasts: Sequence[Forecast], rate: float, split: str) -> Report:
    """What the evaluations of a plan take: totals by role, cost, time and detectable effects.

    Args:
        forecasts: What ``lab.planned.forecast`` says of them.
        rate: Calls a second.
        split: The split that systems are compared on.
    """
    asked = [each for each in forecasts if each.answers]
    calls: Counter[str] = Counter()
    tokens: dict[str, dict[str, float]] = defaultdict(lambda: {"input": 0.0, "output": 0.0})
    unpriced: dict[str, None] = {}
    for each in asked:
        calls.update(each.calls)
        for role, spec in each.models.items():
            tokens[role]["input"] += each.input_tokens[role]
            tokens[role]["output"] += each.output_tokens[role]
            if not (spec.price or spec.is_free):
                unpriced[str(role)] = None
    data = {
        "evaluations": [_evaluation(each) for each in asked],
        "finished": len(forecasts) - len(asked),
        "calls": dict(calls),
        "tokens": dict(tokens),
        "cost": None if unpriced else sum(each.cost for each in asked),
        "unpriced": [*unpriced],
        "measured": all(each.measured for each in asked),
        "seconds": sum(calls.values()) / rate,
        "rate": rate,
        "detectable": {
            each.step.task.name: finite(detectable_difference(each.samples, DISCORDANCE))
            for each in asked
            if each.step.task.split == split
        },
    }
    rows = _rows(data)
    left = [*rows[0]].index("samples") if rows else 0
    return Report(data, lambda show: [rows] if rows else [], remarks=_remarks(data), left=left)


def _evaluation(each: Forecast) -> Record:
    task = each.step.task
    return {
        "task": task.name,
        "split": task.split,
        "system": each.step.system.name,
        "models": {role: spec.label for role, spec in each.models.items()},
        **fields(each, "samples", "answers", "calls", "at_most", "cost", "basis"),
    }


def _rows(data: Mapping[str, Any]) -> list[Row]:
    """Evaluations of the same task and models that follow each other, such as those on dev, as one."""
    lines: list[Record] = []
    for each in data["evaluations"]:
        same = ("task", "split", "system", "models")
        if lines and all(lines[-1][key] == each[key] for key in same):
            last = lines[-1]
            last["calls"] = Counter(last["calls"]) + Counter(each["calls"])
            last["cost"] += each["cost"]
            last["at_most"] |= each["at_most"]
        else:
            lines.append(dict(each))
    systems = {(each["system"], *each["models"].values()) for each in lines}
    several = len(systems) > len({name for name, *_ in systems})  # models of one system
    return [
        {
            **{key: each[key] for key in ("task", "split", "system")},
            **({"models": " + ".join(each["models"].values())} if several else {}),
            "samples": f"{each['samples']:,}",
            **{
                f"{role} calls": f"{'<=' if each['at_most'] else ''}{each['calls'][role]:,}"
                if role in each["calls"]
                else ""
                for role in data["calls"]
            },
            "usd": f"{each['cost']:.2f}",
        }
        for each in lines
    ]


def _remarks(data: Mapping[str, Any]) -> Iterator[str]:
    """The totals of a plan, a line each."""
    if data["finished"]:
        yield f"{data['finished']} evaluations are finished and are not asked again"
    if not data["evaluations"]:
        yield "nothing is left to ask"
        return
    for role, calls in data["calls"].items():
        tokens = data["tokens"][role]
        yield f"{role}: {calls:,} calls, {tokens['input']:,.0f} tokens in, {tokens['output']:,.0f} out"
    if data["unpriced"]:
        names = " and ".join(data["unpriced"])
        yield f"cost: not known; the {names} model has no price (price: in the plan, or an option)"
    elif data["measured"] or not data["cost"]:
        yield f"cost: {data['cost']:.2f} usd paid to endpoints"
    else:
        yield f"cost: about {data['cost']:.2f} usd if all answers are at their longest; after a trial"
        yield "      (--limit 20) the forecast uses the lengths measured there"
    for basis in dict.fromkeys(each["basis"] for each in data["evaluations"]):
        yield f"basis: {basis}"
    yield f"time: {data['seconds'] / 3600:.1f} h at {data['rate']:g} calls a second, plus training"
    for task, effect in data["detectable"].items():
        found = "no difference" if effect is None else f"a difference of {effect:.3f}"
        yield (
            f"{task}: {found} is found with 80% power, "
            f"if only one of two systems is right on {DISCORDANCE:.0%} of the samples"
        )
