"""A sweep's matrix and front, from hand-made runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cowest_bench.config import ModelSpec, Price
from cowest_bench.report import sweep
from cowest_bench.report.sweep import summarise
from cowest_bench.store import Results, Run
from cowest_bench.sweep import Sweep, Swept
from tests.stored import damage, right, store


def plan_of(weak: str) -> Sweep:
    """Two weak models, the first by what it is called in tables, with one that has a price."""
    return Sweep(
        tasks=("a", "b"),
        weak=(ModelSpec(name="w", base=weak), ModelSpec(name="v")),
        strong=(ModelSpec(name="s", price=Price(input=1, output=1)),),
        systems=("weak", "strong", "collab"),
    )


PLAN = plan_of("w")
Runs = dict[tuple[str, int | None, int | None, str], Run]


def by_hand(results: Results) -> Runs:
    """Two weak models with one strong one in two domains: the first gains, the second hardly differs."""
    found: Runs = {}
    for domain, n in (("a", 200), ("b", 100)):
        for weak, strong, system, count, cost in (
            (0, None, "weak", n // 4, 0.0),
            (1, None, "weak", n // 2 + 5, 0.0),
            (None, 0, "strong", n // 2, 0.002),
            (0, 0, "collab", n * 9 // 10, 0.003),
            (1, 0, "collab", n // 2 + 6, 0.004),
        ):
            given: dict[str, Any] = {
                "domain": domain,
                "row": {"cost": [cost] * n},
                "seed": len(found),
            }
            run = store(results, right(count, n), system=system, **given)
            found[domain, weak, strong, system] = run
    return found


def summary_of(results: Results, found: Runs) -> dict[str, Any]:
    return summarise(PLAN, Swept(found, {}, ("a", "b")), results)


def cells_of(summary: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(cell["domain"], cell["weak"]): cell for cell in summary["matrix"]}


def test_marks(results: Results) -> None:
    found = cells_of(summary_of(results, by_hand(results)))
    assert len(found) == 2 * 3
    for (_, weak), cell in found.items():
        assert cell["significant"] == (weak == "w")
        assert cell["undetectable"] == (weak == "v")
        assert cell["best_single"] == ("strong" if weak == "w" else "weak")
    assert found["pooled", "w"]["gain"] == pytest.approx((80 + 40) / 300)
    least = min(cell["p"] for cell in found.values())
    assert min(cell["p_holm"] for cell in found.values()) == pytest.approx(6 * least, abs=0)


def test_what_is_not_known_is_null_in_the_json(results: Results) -> None:
    """One cluster and graded scores: no interval is known."""
    graded: dict[str, Any] = {"clusters": ["one"] * 9, "domain": "a"}
    found: Runs = {
        ("a", 0, None, "weak"): store(results, [0.25] * 9, system="weak", **graded),
        ("a", None, 0, "strong"): store(results, [0.25] * 9, system="strong", **graded),
        ("a", 0, 0, "collab"): store(results, [0.5] * 9, **graded),
    }
    summary = summarise(PLAN, Swept(found, {}, ("a",)), results)
    (cell,) = summary["matrix"]
    assert (cell["low"], cell["detectable"], cell["undetectable"]) == (None, None, True)
    json.loads(sweep.sweep_report(PLAN, summary).text("json"), parse_constant=pytest.fail)


def test_the_front_is_by_dollars_where_there_are_prices(results: Results) -> None:
    found = summary_of(results, by_hand(results))
    pooled = {
        (point["system"], point["weak"]): (point["on_front"], point["cost"])
        for point in found["systems"]
        if point["domain"] == "pooled"
    }
    assert pooled == {
        ("weak", "v"): (True, 0),
        ("weak", "w"): (False, 0),  # as cheap, and worse
        ("strong", None): (False, pytest.approx(2)),  # dearer than the better weak one, and worse
        ("collab", "w"): (True, pytest.approx(3)),
        ("collab", "v"): (False, pytest.approx(4)),
    }
    assert found["cost_unit"] == "usd_per_1k"


def test_a_cost_that_is_not_known_is_on_no_front(results: Results) -> None:
    found = by_hand(results)
    for domain, scores in (("a", right(200, 200)), ("b", right(100, 100))):
        found[domain, None, 0, "strong"] = store(  # the best of all
            results, scores, system="strong", domain=domain, row={"cost": [None] * len(scores)}
        )
    summary = summary_of(results, found)
    strong = summary["systems"][-1]
    assert (strong["domain"], strong["system"]) == ("pooled", "strong")
    assert (strong["on_front"], strong["cost"]) == (False, None)
    notes = sweep.sweep_report(PLAN, summary).notes(str)
    assert any("3 systems have no known cost" in line for line in notes)


def test_errors_are_not_zeros_and_missing_runs_leave_a_cell_empty(results: Results) -> None:
    found = by_hand(results)
    scores = [None] * 100 + right(50, 100)  # strong is right in half of the samples that it has
    found["a", None, 0, "strong"] = store(results, scores, system="strong", domain="a")
    del found["b", 1, 0, "collab"]
    summary = summarise(PLAN, Swept(found, {"v + s on b": "refused"}, ("a", "b")), results)
    cells = cells_of(summary)
    assert set(cells) == {("a", "w"), ("a", "v"), ("b", "w"), ("pooled", "w")}
    assert cells["a", "w"]["n"] == 100
    assert cells["a", "v"]["best_single"] == "strong"  # on the samples that all have scores for
    matrix, _ = sweep.sweep_report(PLAN, summary).tables(str)
    empty = [str(row["+ s"]) for row in matrix if (row["domain"], row["weak"]) == ("pooled", "v")]
    assert empty == [""]
    assert summary["failures"] == [{"name": "v + s on b", "reason": "refused"}]


def test_a_task_without_any_run_leaves_the_pooled_cells_empty(results: Results) -> None:
    found = {key: run for key, run in by_hand(results).items() if key[0] == "a"}
    assert {cell["domain"] for cell in summary_of(results, found)["matrix"]} == {"a"}


def test_a_run_that_cannot_be_read_leaves_its_cells_empty_and_is_named(results: Results) -> None:
    found = by_hand(results)
    bad = found["a", 0, 0, "collab"]
    damage(results.runs / f"{bad.run_id}.parquet")
    summary = summary_of(results, found)
    assert set(cells_of(summary)) == {("a", "v"), ("b", "w"), ("b", "v"), ("pooled", "v")}
    assert [bad.run_id in line for line in summary["damaged"]] == [True]


def test_markdown_shows_names_and_does_nothing_else(results: Results) -> None:
    evil = "a | <img src=x> [y](http://z) @all *"
    plan = plan_of(evil)
    summary = summarise(plan, Swept(by_hand(results), {}, ("a", "b")), results)
    text = sweep.sweep_report(plan, summary).text("md")
    lines = text.splitlines()
    assert lines[0].count("|") == lines[2].count("|") == 5
    assert not any(mark in text for mark in ("<img", "](", "@all"))
    assert "img src" in text and "SECRET" not in text
