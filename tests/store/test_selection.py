"""Which runs a selection means, and which runs of its models alone a run is compared with."""

from __future__ import annotations

from typing import Any

import pytest

from cowest_bench.errors import ConfigError, RecordError
from cowest_bench.store import Results, Run
from cowest_bench.store.comparison import StoredItems
from cowest_bench.store.records import Entry
from cowest_bench.store.selection import Singles, select, select_all
from tests.stored import at, damage, right, store


def trained(number: int, base: str = "weak-64") -> dict[str, Any]:
    return {"name": f"/models/{base}-sft-{number}", "base": base}


def history(results: Results, *, base: str = "weak-64", **given: Any) -> list[Run]:
    """Three checkpoints of one weak model, oldest first; the second is made last."""
    hours = {1: 1, 2: 9, 3: 5}
    for number, hour in hours.items():
        store(results, right(number, 9), weak=trained(number, base), created=at(hour), **given)
    return [run for run in results.all_runs() if run.weak and run.weak.base == base]


def test_the_newest_checkpoint_is_meant_unless_another_one_is_named(results: Results) -> None:
    oldest, previous, newest = history(results)
    stored = results.all_runs()
    assert select(stored, "system=collab") == [newest]
    assert select(stored, "system=collab @newest") == [newest]
    assert select(stored, "@previous system=collab") == [previous]
    assert select_all(stored, "system=collab @all") == [oldest, previous, newest]
    assert select(stored, oldest.run_id[:6]) == [oldest]
    assert select(stored, "weak=weak-64-sft-1") == [oldest]


def test_another_seed_is_another_checkpoint(results: Results) -> None:
    store(results, right(3, 9), created=at(1), seed=0)
    newer = store(results, right(4, 9), created=at(2), seed=1)
    assert select(results.all_runs(), "system=collab") == [newer]
    assert select(results.all_runs(), "system=collab seed=0")[0].seed == 0


def test_two_weak_models_are_two_entries(results: Results) -> None:
    runs = [history(results, base=base)[-1] for base in ("weak-64", "weak-128")]
    with pytest.raises(ConfigError, match="several entries on the same data") as caught:
        select(results.all_runs(), "system=collab")
    assert all(run.run_id in str(caught.value) for run in runs)
    assert select(results.all_runs(), "system=collab weak=weak-64") == [runs[0]]
    assert len(select_all(results.all_runs(), "system=collab")) == 2


def test_formats_and_controls_are_entries_of_their_own(results: Results) -> None:
    for given in ({"format": "direct"}, {"format": "cot"}, {"control": "shuffled"}):
        store(results, right(4, 9), **given)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="several entries"):
        select(results.all_runs(), "system=collab")
    assert select(results.all_runs(), "format=cot")[0].format == "cot"
    assert select(results.all_runs(), "control=shuffled")[0].control == "shuffled"
    entries = {(Entry.of(run).models, run.format, run.control) for run in results.all_runs()}
    models = "weak-model + strong-model"
    assert entries == {(models, "direct", None), (models, "cot", None), (models, None, "shuffled")}


def test_a_checkpoint_is_looked_for_in_every_data_set(results: Results) -> None:
    history(results)
    history(results, domain="ethics")
    store(results, right(5, 9), domain="other")
    found = select(results.all_runs(), "system=collab weak=weak-64 @previous")
    assert [(run.domain, run.created) for run in found] == [("ethics", at(5)), ("medical", at(5))]


def test_what_is_not_found_may_be_damaged(results: Results) -> None:
    run = store(results, right(5, 9))
    with pytest.raises(ConfigError, match="No stored run is 'system=weak'; there are: "):
        select(results.all_runs(), "system=weak")
    (results.runs / "bad.json").write_text("{")
    stored = results.all_runs()
    assert select(stored, "system=collab", results.damaged) == [run]
    for text in ("system=weak", "bad"):
        with pytest.raises(RecordError, match=r"bad\.json is not a valid run"):
            select(stored, text, results.damaged)


# --- the models alone -----------------------------------------------------------------------------


def test_a_model_alone_is_the_same_model_or_the_one_before_its_training(results: Results) -> None:
    first, second = (
        store(results, right(n, 9), system="weak", weak=trained(n), created=at(n)) for n in (1, 2)
    )
    again = store(results, right(3, 9), system="weak", weak=trained(1), seed=1, created=at(3))
    store(results, right(9, 9), system="weak", weak="org/other", created=at(4))
    store(results, right(9, 9), system="weak", weak=trained(1), control="x", created=at(5))
    store(results, right(9, 9), system="weak", weak=trained(1), data="other", created=at(5))
    stored = results.all_runs()

    def weak_alone(weak: Any) -> Run | None:
        return Singles(stored).of(store(results, right(5, 9), weak=weak), "weak")

    assert weak_alone(trained(1)) == again
    assert weak_alone(trained(2)) == second
    assert weak_alone(trained(2) | {"adapter": "dpo-1"}) == second  # on the same weights
    assert weak_alone({"name": "/models/merged", "base": "weak-64"}) == again  # the newest
    assert weak_alone({"name": "org/w", "adapter": "dpo-1"}) is None
    assert weak_alone("org/unknown") is None
    assert first in stored


def test_a_strong_model_alone_is_the_same_one_or_none(results: Results) -> None:
    run = store(results, right(5, 9), strong="org/s-1")
    store(results, right(5, 9), system="strong", strong="org/s-2")
    assert Singles(results.all_runs()).of(run, "strong") is None
    own = store(results, right(4, 9), system="strong", strong="org/s-1")
    assert Singles(results.all_runs()).of(run, "strong") == own


def test_rows_that_cannot_be_read_are_no_items_and_are_named_once(results: Results) -> None:
    bad, good = store(results, right(5, 9)), store(results, right(4, 9))
    damage(results.runs / f"{bad.run_id}.parquet")
    read = StoredItems(results)
    assert read.of(bad) is read.of(bad) is None
    assert read.all_of([good, bad]) is read.all_of([good, None]) is None
    assert read.all_of([good]) == [read.of(good)]
    assert len(results.damaged) == 1
