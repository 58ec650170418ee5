"""A sweep's matrix and front, from hand-made runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cowest_bench.report import sweep
from cowest_bench.report.sweep import Grid, Summary, summarise
from cowest_bench.store import Results, Run
from tests.stored import damage, right, store

GRID = Grid(("a", "b"), ("w", "v"), ("s",), ("weak", "strong", "collab"), priced=True)
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


def summary_of(results: Results, found: Runs) -> Summary:
    return summarise(GRID, found, {}, results)


def test_marks(results: Results) -> None:
    found = summary_of(results, by_hand(results))
    assert len(found.cells) == 2 * 3
    for cell in found.cells:
        assert cell.significant == (cell.weak == "w")
        assert cell.undetectable == (cell.weak == "v")
        assert cell.best_single == ("strong" if cell.weak == "w" else "weak")
    pooled = next(cell for cell in found.cells if (cell.domain, cell.weak) == ("pooled", "w"))
    assert pooled.found.difference.value == pytest.approx((80 + 40) / 300)
    least = min(cell.found.p for cell in found.cells)
    assert min(cell.found.p_holm for cell in found.cells) == pytest.approx(6 * least, abs=0)
    surely = replace(pooled, found=replace(pooled.found, detectable=1.0))
    assert surely.significant and not surely.undetectable


def test_the_front_is_by_dollars_where_there_are_prices(results: Results) -> None:
    found = summary_of(results, by_hand(results))
    pooled = {
        (point.system, point.weak): (point.on_front, point.cost)
        for point in found.points
        if point.domain == "pooled"
    }
    assert pooled == {
        ("weak", "v"): (True, 0),
        ("weak", "w"): (False, 0),  # as cheap, and worse
        ("strong", None): (False, pytest.approx(2)),  # dearer than the better weak one, and worse
        ("collab", "w"): (True, pytest.approx(3)),
        ("collab", "v"): (False, pytest.approx(4)),
    }
    assert sweep.as_json(found)["cost_unit"] == "usd_per_1k"


def test_a_cost_that_is_not_known_is_on_no_front(results: Results) -> None:
    found = by_hand(results)
    for domain, scores in (("a", right(200, 200)), ("b", right(100, 100))):
        found[domain, None, 0, "strong"] = store(  # the best of all
            results, scores, system="strong", domain=domain, row={"cost": [None] * len(scores)}
        )
    shown = summary_of(results, found)
    (strong,) = [p for p in shown.points if (p.domain, p.system) == ("pooled", "strong")]
    assert not strong.on_front and strong.cost != strong.cost
    assert sweep.as_json(shown)["systems"][-1]["cost"] is None
    assert any("3 systems have no known cost" in line for line in sweep.matrix_notes(shown))


def test_errors_are_not_zeros_and_missing_runs_leave_a_cell_empty(results: Results) -> None:
    found = by_hand(results)
    scores = [None] * 100 + right(50, 100)  # strong is right in half of the samples that it has
    found["a", None, 0, "strong"] = store(results, scores, system="strong", domain="a")
    del found["b", 1, 0, "collab"]
    shown = summarise(GRID, found, {"v + s on b": "refused"}, results)
    cells = {(cell.domain, cell.weak): cell for cell in shown.cells}
    assert set(cells) == {("a", "w"), ("a", "v"), ("b", "w"), ("pooled", "w")}
    assert cells["a", "w"].found.n == 100
    assert cells["a", "v"].best_single == "strong"  # on the samples that all three have scores for
    rows = sweep.matrix_rows(shown)
    empty = [str(row["+ s"]) for row in rows if (row["domain"], row["weak"]) == ("pooled", "v")]
    assert empty == [""]
    failures = sweep.as_json(shown)["failures"]
    assert failures == [{"name": "v + s on b", "reason": "refused"}]


def test_a_task_without_any_run_leaves_the_pooled_cells_empty(results: Results) -> None:
    found = {key: run for key, run in by_hand(results).items() if key[0] == "a"}
    assert {cell.domain for cell in summary_of(results, found).cells} == {"a"}


def test_a_run_that_cannot_be_read_leaves_its_cells_empty_and_is_named(results: Results) -> None:
    found = by_hand(results)
    bad = found["a", 0, 0, "collab"]
    damage(results.runs / f"{bad.run_id}.parquet")
    shown = summary_of(results, found)
    assert {(c.domain, c.weak) for c in shown.cells} == {
        ("a", "v"),
        ("b", "w"),
        ("b", "v"),
        ("pooled", "v"),
    }
    assert [bad.run_id in line for line in shown.damaged] == [True]


def test_markdown_shows_names_and_does_nothing_else(results: Results) -> None:
    evil = "a | <img src=x> [y](http://z) @all *"
    grid = replace(GRID, weak=(evil, "v"))
    text = sweep.markdown(summarise(grid, by_hand(results), {}, results))
    lines = text.splitlines()
    assert lines[0].count("|") == lines[2].count("|") == 5
    assert not any(mark in text for mark in ("<img", "](", "@all"))
    assert "SECRET" not in text
