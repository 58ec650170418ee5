"""Which id changes with what: every key, row and setting is changed in turn, and nothing is left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from cowest_bench.config import Asking, ModelSpec, Price
from cowest_bench.lab.evaluate import Evaluate
from cowest_bench.lab.judge import Judge
from cowest_bench.lab.planned import Planned
from cowest_bench.lab.prefer import Prefer
from cowest_bench.lab.training import DPOSettings, Lora, SFTSettings
from cowest_bench.lab.trainings import Align, Sft
from cowest_bench.method import Method, cowest
from cowest_bench.systems import COLLAB, COLLAB_TUNED, STRONG
from cowest_bench.tasks import Metadata, Task, load_task

UTILS = """
import json
from pathlib import Path
import datasets

def load(**kwargs):
    rows = json.loads((Path(__file__).parent / "rows.json").read_text())
    return datasets.DatasetDict({name: datasets.Dataset.from_list(some) for name, some in rows.items()})

def score(doc, results):
    return {"exact_match": float(results[0] == doc["gold"])}
"""
ROWS = {
    split: [
        {"question": f"{split} {i} ?", "gold": f"g{i}", "place": f"p{i // 2}"} for i in range(4)
    ]
    for split in ("train", "feedback", "dev", "test")
}
TOWN: dict[str, Any] = {
    "task": "town",
    "tag": "places",
    "custom_dataset": "!function utils.load",
    "output_type": "generate_until",
    "test_split": "test",
    "description": "",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{gold}}",
    "num_fewshot": 0,
    "repeats": 1,
    "generation_kwargs": {"until": ["."], "max_gen_toks": 8, "do_sample": False},
    "filter_list": [
        {
            "name": "answer",
            "filter": [
                {"function": "regex", "regex_pattern": "answer : (\\w+)"},
                {"function": "take_first"},
            ],
        }
    ],
    "process_results": "!function utils.score",
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {
        "version": 1.0,
        "domain": "town",
        "suite": "towns",
        "primary": "exact_match,answer",
        "splits": {name: name for name in ("train", "feedback", "dev", "test")},
        "sft_target": "answer : {{gold}}",
        "cluster": "{{place}}",
        "answer_prefix": "answer :",
        "prompts": {"cot": {"draft": "{question}", "refine": "{question} {draft}"}},
        "draft_tokens": 8,
        "sizes": {"test": 4},
        "prompt_tokens": 3,
    },
}
WEIGHTS = Path(__file__).parents[2] / "cowest_bench" / "pocket"
WEAK = ModelSpec(name=str(WEIGHTS / "strong-early"), dtype="float32")
STRONG_MODEL = ModelSpec(name=str(WEIGHTS / "strong"), dtype="float32")

Ids = dict[str, str]


def town(folder: Path, content: Mapping[str, Any] = TOWN, utils: str = UTILS) -> Task:
    """The task of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "utils.py").write_text(utils)
    if not (folder / "rows.json").exists():
        (folder / "rows.json").write_text(json.dumps(ROWS))
    text = yaml.safe_dump(dict(content), sort_keys=False)
    (folder / "town.yaml").write_text(
        text.replace("'!function ", "!function ")
        .replace("score'", "score")
        .replace("load'", "load")
    )
    return load_task(str(content["task"]), include_path=str(folder))


def ids(
    task: Task,
    weak: ModelSpec = WEAK,
    asking: Asking | None = None,
    how: Method | None = None,
    **changes: Any,
) -> Ids:
    """The ids of everything that the method makes on a task."""
    asking, how = asking or Asking(), how or Method(signal="logprob")
    pair = {"weak": weak, "strong": STRONG_MODEL}
    sft = Sft(weak, task.on("train"), how.sft, asking.seed)
    collab = replace(Evaluate(task, COLLAB, pair, asking), **changes)  # type: ignore[arg-type]
    strong = Evaluate(task, STRONG, pair, asking)  # type: ignore[arg-type]
    graded = replace(strong, graded=True)
    drafts = Evaluate(task.on("feedback"), COLLAB, pair, asking, how.k, how.graded)  # type: ignore[arg-type]
    alone = Evaluate(task.on("feedback"), STRONG, pair, asking, graded=how.graded)  # type: ignore[arg-type]
    prefer = Prefer(drafts, alone, None, how.pairing, asking.seed, how.imitate)
    dev = Evaluate(task.on("dev"), COLLAB, pair, asking)  # type: ignore[arg-type]
    align = Align(weak, prefer, dev, how.dpo, asking.seed)
    return {
        "collab": collab.id,
        "strong": strong.id,
        "graded": graded.id,
        "score": strong.score_id,
        "data": task.data_id,
        "sft": sft.id,
        "prefer": prefer.id,
        "align": align.id,
    }


def changed(before: Ids, after: Ids) -> set[str]:
    return {name for name in before if before[name] != after[name]}


ASKED = {"collab", "strong", "graded"}  # what is asked on the test split
METHOD = {"prefer", "align"}
ALL = ASKED | METHOD | {"sft", "data"}

#: What changes with every key of a task's file. Scores of feedback and dev decide pairs and the best
#: step, so that what changes a score changes these as well.
KEYS: dict[str, tuple[Any, set[str]]] = {
    "task": ("village", ASKED | METHOD),
    "tag": ("other", set()),
    "output_type": (None, set()),  # only generate_until is accepted: see test_tasks.py
    "custom_dataset": (None, set()),  # its rows count: see the test of the rows
    "test_split": ("dev", set()),  # metadata says which split is test
    "description": ("Look: ", ALL),
    "doc_to_text": ("{{question}} !", ALL),
    "doc_to_target": ("{{gold}}!", METHOD | {"score", "data", "graded"}),
    "num_fewshot": (1, ALL),
    "repeats": (2, ASKED | METHOD),
    "generation_kwargs": ({"until": ["!"], "max_gen_toks": 8, "do_sample": False}, ASKED | METHOD | {"data"}),
    "filter_list": ([{"name": "answer", "filter": [{"function": "take_first"}]}], METHOD | {"score"}),
    "process_results": ("!function utils.other_score", METHOD | {"score"}),
    "metric_list": ([{"metric": "exact_match", "aggregation": "mean", "higher_is_better": False}], METHOD | {"score"}),
    "metadata.version": (2.0, METHOD | {"score", "data"}),
    "metadata.domain": ("village", METHOD | {"score"}),
    "metadata.suite": ("villages", METHOD | {"score"}),
    "metadata.primary": (None, METHOD | {"score", "data"}),
    "metadata.splits": ({"train": "dev", "feedback": "feedback", "dev": "train", "test": "test"}, {"sft", "align"}),
    "metadata.sft_target": ("{{gold}}", {"sft"}),
    "metadata.cluster": ("{{gold}}", METHOD | {"score", "data"}),
    "metadata.answer_prefix": ("so :", METHOD | {"graded"}),
    "metadata.prompts": ({"cot": {"draft": "{question} ?", "refine": "{question} {draft}"}}, METHOD | {"collab"}),
    "metadata.draft_tokens": (9, METHOD | {"collab"}),
    "metadata.sizes": ({"test": 5}, set()),
    "metadata.prompt_tokens": (4, set()),
}  # fmt: skip


def edited(key: str, value: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(TOWN))
    *above, last = key.split(".")
    part = content
    for name in above:
        part = part[name]
    if value is None:
        part.pop(last, None)
    else:
        part[last] = value
    return content


@pytest.mark.parametrize("key", KEYS)
def test_every_key_of_a_tasks_file(key: str, tmp_path: Path) -> None:
    value, expected = KEYS[key]
    before = ids(town(tmp_path / "before"))
    if value is None and key != "metadata.primary":
        return
    utils = UTILS + UTILS[UTILS.index("def score") :].replace("def score", "def other_score")
    with_other = utils if key == "process_results" else UTILS
    if key == "process_results":  # the same file, so that only the name differs
        before = ids(town(tmp_path / "with", utils=utils))
    after = ids(town(tmp_path / "after", edited(key, value), with_other))
    assert changed(before, after) == expected


def test_no_key_is_left_out() -> None:
    keys = {key for key in TOWN if key != "metadata"}
    keys |= {f"metadata.{key}" for key in Metadata.model_fields}
    assert keys == set(KEYS)


def test_code_of_a_metric_counts_and_its_comments_do_not(tmp_path: Path) -> None:
    before = ids(town(tmp_path / "before"))
    commented = UTILS + "\n# a comment\n"
    assert changed(before, ids(town(tmp_path / "same", utils=commented))) == set()
    other = UTILS.replace("results[0] == doc", "results[0] >= doc")
    assert changed(before, ids(town(tmp_path / "other", utils=other))) == METHOD | {"score"}


@pytest.mark.parametrize(
    ("split", "column", "expected"),
    [
        ("train", "question", {"sft"}),
        ("train", "gold", {"sft"}),
        ("train", "place", set()),
        ("feedback", "question", METHOD),
        ("feedback", "gold", METHOD),
        ("dev", "question", {"align"}),
        ("dev", "gold", {"align"}),
        ("test", "question", ASKED | {"data"}),
        ("test", "gold", {"graded", "score", "data"}),
        ("test", "place", {"score", "data"}),
    ],
)
def test_every_row_of_the_data(split: str, column: str, expected: set[str], tmp_path: Path) -> None:
    before = ids(town(tmp_path / "before"))
    for i in range(4):
        rows = json.loads(json.dumps(ROWS))
        rows[split][i][column] += "x"
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / "rows.json").write_text(json.dumps(rows))
        assert changed(before, ids(town(folder))) == expected


MODEL: dict[str, tuple[Any, set[str]]] = {
    "name": (STRONG_MODEL.name, {"collab", "sft", "prefer", "align"}),
    "adapter": (None, set()),  # see test_models.py: an adapter has to fit
    "revision": (None, set()),  # of models on a hub or behind an endpoint: see below
    "dtype": ("bfloat16", {"collab", "prefer", "align"}),
    "sampling": ({"top_p": 0.5}, {"collab", "prefer", "align"}),
    "price": (Price(input=1, output=1), set()),
    "remote_code": (True, set()),
    "card": ("elsewhere/card.json", set()),
    "base": ("another", set()),
}


def test_every_setting_of_a_model(tmp_path: Path) -> None:
    task = town(tmp_path)
    before = ids(task)
    assert set(MODEL) == set(ModelSpec.model_fields)
    for name, (value, expected) in MODEL.items():
        after = ids(task, WEAK.model_copy(update={name: value}) if value is not None else WEAK)
        assert changed(before, after) == expected, name


def test_a_revision_counts_where_there_is_one(tmp_path: Path) -> None:
    task = town(tmp_path)
    served = ModelSpec(name="openai-api/local/x")
    one, other = (
        Evaluate(task, STRONG, {"strong": served.model_copy(update={"revision": r})}, Asking()).id
        for r in (None, "v2")
    )
    assert one != other


def test_every_setting_of_asking(tmp_path: Path) -> None:
    content = edited(
        "metadata.prompts", {f: {"draft": f"{f} {{question}}"} for f in ("cot", "direct")}
    )
    task = town(tmp_path, content)
    before = ids(task)
    drafted = {"collab", "prefer", "align"}
    expected: dict[str, tuple[Any, set[str]]] = {
        "seed": (1, drafted | {"sft"}),
        "format": ("direct", drafted),
        "temperature": (0.5, drafted),
    }
    assert set(expected) == set(Asking.model_fields)
    for name, (value, ids_changed) in expected.items():
        assert changed(before, ids(task, asking=Asking(**{name: value}))) == ids_changed, name


def test_every_setting_of_an_evaluation(tmp_path: Path) -> None:
    task = town(tmp_path)
    before = ids(task)
    given = {"task", "system", "given", "asking"}  # the tests above
    expected: dict[str, Any] = {"epochs": 2, "graded": True, "control": "shuffled"}
    assert given | set(expected) == {field.name for field in fields(Evaluate)}
    for name, value in expected.items():
        assert changed(before, ids(task, **{name: value})) == {"collab"}, name


def other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return value[:1] if isinstance(value, tuple) else Lora(rank=3)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [("sft", SFTSettings(), {"sft"}), ("dpo", DPOSettings(), {"align"})],
)
def test_every_setting_of_training(
    name: str, settings: BaseModel, expected: set[str], tmp_path: Path
) -> None:
    task = town(tmp_path)
    before = ids(task)
    for field in type(settings).model_fields:
        changes = {field: other(getattr(settings, field))}
        how = Method(signal="logprob").model_copy(
            update={name: settings.model_copy(update=changes)}
        )
        assert changed(before, ids(task, how=how)) == expected, field


def test_every_setting_of_the_method(tmp_path: Path) -> None:
    task = town(tmp_path)
    how = Method(signal="logprob")
    before = ids(task, how=how)
    expected: dict[str, tuple[Any, set[str]]] = {
        "signal": ("metric", METHOD),
        "rule": ("sign", METHOD),
        "near_best": (0.1, METHOD),
        "margin": (0.5, METHOD),
        "max_pairs": (1, METHOD),
        "k": (5, METHOD),
        "control": ("random-pairs", METHOD),
        "rounds": (2, set()),  # more steps; none of the first round is another
        "sft": (how.sft, set()),  # the test above
        "dpo": (how.dpo, set()),
    }
    assert set(expected) == set(Method.model_fields)
    for name, (value, ids_changed) in expected.items():
        assert changed(before, ids(task, how=how.model_copy(update={name: value}))) == ids_changed


def test_a_judgement_depends_on_the_judge_and_on_who_answered_what(tmp_path: Path) -> None:
    task = town(tmp_path)
    drafts = Evaluate(task, COLLAB, {"weak": WEAK, "strong": STRONG_MODEL}, Asking())
    alone = Evaluate(task, STRONG, {"strong": STRONG_MODEL}, Asking())
    judges = [ModelSpec(name=f"openai-api/local/{name}") for name in "ab"]
    first = Judge.of(drafts, alone, judges[0]).id
    assert Judge.of(drafts, alone, judges[0]).id == first
    assert Judge.of(drafts, alone, judges[1]).id != first
    assert Judge.of(replace(drafts, epochs=2), alone, judges[0]).id != first


def test_libraries_are_in_no_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade buys no answer again."""
    before = ids(town(tmp_path / "before"))
    upgraded: Callable[[str], str] = lambda name: "99.0"
    monkeypatch.setattr("importlib.metadata.version", upgraded)
    for module in ("cowest_bench.lab.evaluate", "cowest_bench.models.identity"):
        monkeypatch.setattr(f"{module}.version", upgraded)
    assert ids(town(tmp_path / "after")) == before


def test_every_step_of_a_plan_has_its_own_id(tmp_path: Path) -> None:
    lab = Planned()
    how = Method(rounds=2, signal="metric")
    pairing: Any = type("P", (), {"weak": WEAK, "strong": STRONG_MODEL})
    tuned = list(cowest(lab, town(tmp_path), pairing, how, systems=(STRONG, COLLAB, COLLAB_TUNED)))
    assert len({step.id for step in tuned}) == len(tuned) == 4  # tuned in each round
    assert [step.verb for step in lab.steps.values()] == [
        *("sft", "evaluate", "evaluate"),
        *("evaluate", "evaluate", "prefer", "align", "evaluate"),
        *("evaluate", "prefer", "align", "evaluate"),  # the strong model alone is shared
    ]
