"""Charts, by what they say to Vega-Lite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import altair as alt
import pandas as pd
import pytest

from leaderboard import charts, training_charts
from tests.boards import HOSTILE

ENTRIES = pd.DataFrame(
    {
        "label": ["tuned", "collab", HOSTILE, "strong"],
        "system": ["collab-tuned", "collab", "weak", "strong"],
        "score": [0.9, 0.7, 0.5, 0.4],
        "low": [0.85, 0.6, 0.4, 0.3],
        "high": [0.95, 0.8, 0.6, 0.5],
        "tokens": [90.0, 70.0, 100.0, 20.0],
    }
)
SYSTEMS = pd.DataFrame(
    {
        "system": ["weak", "strong", "collab", "collab-tuned"],
        "color": ["#CC79A7", "#E69F00", "#009E73", "#56B4E9"],
    }
)
PAIRINGS = pd.DataFrame(
    {
        "weak": ["w1", "w2"],
        "strong": ["s", "s"],
        "label": ["w1 + s", "w2 + s"],
        "over_best": [0.3, 0.01],
        "over_best_low": [0.2, -0.1],
        "over_best_high": [0.4, 0.12],
        "over_best_detectable": [0.1, 0.1],
        "significant": [True, False],
    }
)
DIFFERENCES = pd.DataFrame(
    {
        "domain": ["medical", "pooled"],
        "difference": [0.2, -0.1],
        "low": [0.1, -0.2],
        "high": [0.3, -0.05],
        "verdict": ["improved", "regressed"],
    }
)
STEPS = pd.DataFrame(
    {
        "step": [0, 10, 20],
        "loss": [None, 0.6, 0.5],
        "chosen_logp": [None, -2.0, -1.5],
        "rejected_logp": [None, -2.5, -4.0],
        "margin": [None, 0.1, 0.5],
        "accuracy": [None, 0.7, 0.9],
        "dev_score": [0.5, None, 0.8],
    }
)
HISTORY = pd.DataFrame(
    {
        "created": pd.to_datetime(["2026-01-01", "2026-01-05"]),
        "checkpoint": ["one", "two"],
        "score": [0.5, 0.6],
        "low": [0.4, 0.5],
        "high": [0.6, 0.7],
        "verdict": ["first", "improved"],
    }
)
LENGTHS = pd.DataFrame({"domain": ["medical"], "system": ["collab"], "draft_tokens": [30.0]})
DELTAS = pd.DataFrame({"delta": [1.0, 1.0, 0.0, -1.0]})

EVERY: dict[str, tuple[Callable[..., charts.Picture], pd.DataFrame, tuple[Any, ...]]] = {
    "intervals": (charts.intervals, ENTRIES, (SYSTEMS,)),
    "pareto": (charts.pareto, ENTRIES, (SYSTEMS, "tokens", "tokens")),
    "heatmap": (charts.heatmap, PAIRINGS, (0.3,)),
    "forest": (charts.forest, DIFFERENCES, (0.02,)),
    "history": (charts.history, HISTORY, (0.02,)),
    "influence": (training_charts.influence, DELTAS, ("metric",)),
    "curves": (training_charts.curves, STEPS, ("log-probability", 20)),
    "lengths": (training_charts.draft_lengths, LENGTHS, (SYSTEMS,)),
}


def spec(picture: charts.Picture | alt.Color | alt.Shape) -> dict[str, Any]:
    found = picture.to_dict()
    assert isinstance(found, dict)
    return found


def layer(picture: charts.Picture, mark: str) -> dict[str, Any]:
    return next(each for each in spec(picture)["layer"] if each["mark"]["type"] == mark)


def rows(picture: charts.Picture) -> list[dict[str, Any]]:
    """Of the chart's largest table."""
    return max(spec(picture)["datasets"].values(), key=len)


@pytest.mark.parametrize("name", EVERY)
def test_every_chart_has_a_description_and_valid_vega_lite(name: str) -> None:
    build, frame, more = EVERY[name]
    assert len(spec(build(frame, *more))["description"]) > 20


@pytest.mark.parametrize("name", EVERY)
def test_every_chart_can_be_empty(name: str) -> None:
    build, frame, more = EVERY[name]
    assert spec(build(frame.iloc[:0], *more))["description"]


@pytest.mark.parametrize("name", ["intervals", "pareto"])
def test_names_of_others_are_data_that_can_be_shown(name: str) -> None:
    build, frame, more = EVERY[name]
    labels = {row["label"] for row in rows(build(frame, *more))}
    assert HOSTILE not in labels
    assert any("⟨202E⟩" in label for label in labels)


def test_intervals_keep_the_order_of_the_table() -> None:
    point = layer(charts.intervals(ENTRIES, SYSTEMS), "point")["encoding"]
    assert point["y"]["sort"][:2] == ["tuned", "collab"]
    assert point["x"]["field"] == "score"
    bar = layer(charts.intervals(ENTRIES, SYSTEMS), "rule")["encoding"]
    assert (bar["x"]["field"], bar["x2"]["field"]) == ("low", "high")


def test_systems_have_a_colour_and_a_shape_of_their_own() -> None:
    point = layer(charts.pareto(ENTRIES, SYSTEMS, "tokens", "tokens"), "point")["encoding"]
    for channel in ("color", "shape"):
        scale = point[channel]["scale"]
        assert scale["domain"] == ["weak", "strong", "collab", "collab-tuned"]
        assert len(set(scale["range"])) == 4


def test_more_systems_than_shapes_begin_again_and_a_bad_colour_is_grey() -> None:
    names = [f"system {i}" for i in range(11)]
    colours = ["#123456", "red; hacked", None, *["#654321"] * 8]
    systems = pd.DataFrame({"system": names, "color": colours})
    color, shape = (spec(mark)["scale"] for mark in charts.system_marks(systems))
    assert color["domain"] == shape["domain"] == names
    assert color["range"][:3] == ["#123456", charts.GREY, charts.GREY]
    assert len(shape["range"]) == 11 and len({*shape["range"][:8]}) == 8
    assert shape["range"][8:] == shape["range"][:3]


def test_the_pareto_line_joins_what_nothing_cheaper_beats() -> None:
    found = rows(charts.pareto(ENTRIES, SYSTEMS, "tokens", "tokens"))
    assert [row["label"] for row in found if row["best"]] == ["strong", "collab", "tuned"]


@pytest.mark.parametrize(("dearest", "scale"), [(30.0, "linear"), (5_000.0, "log")])
def test_costs_of_several_magnitudes_are_on_a_logarithmic_scale(dearest: float, scale: str) -> None:
    frame = ENTRIES.assign(tokens=[dearest, 25.0, 22.0, 20.0])
    x = layer(charts.pareto(frame, SYSTEMS, "tokens", "tokens"), "point")["encoding"]["x"]
    assert x["scale"].get("type", "linear") == scale


def test_a_gain_that_such_a_run_cannot_find_is_grey() -> None:
    found = {row["weak"]: row for row in rows(charts.heatmap(PAIRINGS, 0.3))}
    assert found["w1"]["found"] and found["w1"]["shown"] == "+0.300 ★"
    assert not found["w2"]["found"] and found["w2"]["shown"] == "+0.010"
    colour = layer(charts.heatmap(PAIRINGS, 0.3), "rect")["encoding"]["color"]
    assert colour["condition"]["test"] == "datum.found"
    assert colour["condition"]["scale"]["domain"] == [-0.3, 0, 0.3]


def test_a_cell_of_the_heatmap_can_be_chosen() -> None:
    (parameter,) = spec(charts.heatmap(PAIRINGS, 0.3))["params"]
    assert parameter["name"] == "cell"
    assert parameter["select"] == {"type": "point", "fields": ["weak", "strong"]}


def test_the_forest_has_the_margin_as_a_band() -> None:
    found = spec(charts.forest(DIFFERENCES, 0.02))
    band = found["layer"][0]
    assert band["mark"]["type"] == "rect"
    assert found["datasets"][band["data"]["name"]] == [{"low": -0.02, "high": 0.02}]
    assert "improved" in found["description"] and "regressed" in found["description"]


def test_the_square_counts_each_sample_once() -> None:
    found = {row["state"]: row for row in rows(charts.square(5, 2, 30, 3))}
    assert (found["helped"]["baseline"], found["helped"]["candidate"]) == ("wrong", "right")
    assert (found["hurt"]["baseline"], found["hurt"]["candidate"]) == ("right", "wrong")
    assert sum(row["samples"] for row in found.values()) == 40


def test_influences_of_right_and_wrong_are_counted_and_graded_ones_binned() -> None:
    few = training_charts.influence(DELTAS, "metric")
    assert {row["kind"]: row["drafts"] for row in rows(few)} == {
        "hurt": 1,
        "neither": 1,
        "helped": 2,
    }
    many = pd.DataFrame({"delta": [i / 1000 - 2 for i in range(100_000)]})
    assert len(rows(training_charts.influence(many, "logprob"))) == 40


def test_curves_show_both_drafts_and_the_step_that_was_kept() -> None:
    found = spec(training_charts.curves(STEPS, "log-probability", 20))
    assert {row["line"] for row in rows(training_charts.curves(STEPS, "log-probability", 20))} == {
        "chosen draft",
        "rejected draft",
    }
    rule = found["layer"][1]
    assert found["datasets"][rule["data"]["name"]] == [{"step": 20}]


def test_only_curves_that_were_recorded_are_shown() -> None:
    assert training_charts.recorded(STEPS.assign(margin=None)) == [
        "log-probability",
        "pairs told apart",
        "dev score of the collaboration",
        "loss",
    ]
