"""Tasks load, validate, refuse and report as they should."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from jinja2.exceptions import SecurityError

from cowest_bench.errors import ConfigError, TaskError
from cowest_bench.plan import Plan, planned
from cowest_bench.tasks import list_tasks, load_task, tasks_folder, validate_task
from tests.conftest import ROOT

BROKEN = "task: broken\n  doc_to_text: [unclosed\n"
MULTIPLE_CHOICE = """\
task: choices
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: ["a", "b"]
doc_to_target: 0
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


@pytest.mark.parametrize("name", sorted(list_tasks(tasks_folder() / "pocket")))
def test_every_gold_answer_scores_one(name: str) -> None:
    for right, total in validate_task(load_task(name, seed=4)).values():
        assert right == total > 0


def test_a_wrong_gold_answer_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation is no tautology: a broken answer filter fails it."""
    task = load_task("cowest_pocket_ethics", seed=104)
    monkeypatch.setattr(task.meta, "__dict__", {**task.meta.__dict__, "answer_prefix": "reply :"})
    monkeypatch.setattr(task, "on", lambda split: task)
    assert all(right == 0 for right, _ in validate_task(task).values())


def test_splits_have_their_own_questions() -> None:
    task = load_task("cowest_pocket_medical", seed=4)
    assert (len(task.samples), len(task.on("dev").samples)) == (300, 120)
    assert task.data_id != task.on("dev").data_id
    assert task.data_id != load_task("cowest_pocket_medical", seed=5).data_id


def test_unknown_task_names_the_closest() -> None:
    with pytest.raises(TaskError, match="cowest_pocket_medical"):
        load_task("cowest_pocket_medcial")


def test_broken_yaml_is_one_sentence_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text(BROKEN)
    with pytest.raises(TaskError, match=r"broken\.yaml line 2 is not valid YAML"):
        load_task("broken", include_path=str(tmp_path))


def test_loglikelihood_task_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "q"}\n{"question": "r"}\n')
    yaml = MULTIPLE_CHOICE.replace("FILE", str(tmp_path / "rows.jsonl"))
    (tmp_path / "choices.yaml").write_text(yaml)
    with pytest.raises(TaskError, match="choose a generate_until task"):
        load_task("choices", include_path=str(tmp_path))


def plain(folder: Path, more: str = "") -> Path:
    """A folder with a task of three rows."""
    (folder / "rows.jsonl").write_text('{"question": "q", "answer": "a"}\n' * 3)
    (folder / "plain.yaml").write_text(
        "task: plain\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {folder / 'rows.jsonl'}}}}}\n"
        "test_split: test\noutput_type: generate_until\n"
        'doc_to_text: "{{question}}"\ndoc_to_target: "{{answer}}"\n'
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
        f"{more}"
    )
    return folder


def test_missing_split_says_how_to_name_it(tmp_path: Path) -> None:
    task = load_task("plain", include_path=str(plain(tmp_path)))
    assert len(task.samples) == 3
    with pytest.raises(TaskError, match="metadata: splits:"):
        load_task("plain", "feedback", include_path=str(tmp_path))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        *[({"limit": each}, "Option limit is wrong") for each in (0, -5, "ten", 0.5, 1e20, True)],
        ({"num_fewshot": -1}, "Option num_fewshot is wrong"),
        ({"num_fewshot": 301}, "num_fewshot is 301, but task cowest_pocket_medical has 300 rows"),
        (
            {"gen_kwargs": "temperature=0"},
            "Option gen_kwargs is wrong: Input should be a valid dict",
        ),
        ({"gen_kwargs": {"temperature": "hot"}}, "Option gen_kwargs temperature is wrong"),
        ({"gen_kwargs": {"max_gen_toks": 0}}, "Option gen_kwargs max_gen_toks is wrong"),
        ({"gen_kwargs": {"topp": 0.5}}, "Option gen_kwargs topp is unknown; did you mean top_p"),
        ([1], "The plan's options is wrong"),
        ("limit=1", "The plan's options is wrong"),
    ],
)
def test_a_wrong_option_is_refused_while_planning(
    options: object, said: str, tmp_path: Path
) -> None:
    """From the file of a plan, whatever the command line adds; in one sentence, with exit code 2."""
    content = {"tasks": ["cowest_pocket_medical"], "strong": "openai-api/local/strong"}
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump(content | {"systems": ["strong"], "options": options}))
    with pytest.raises(ConfigError, match=said) as refused:
        planned(Plan.load(file, {"options": {"data": None, "seed": 4}}), stated=True)
    assert refused.value.exit_code == 2
    assert str(refused.value).count("\n") == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("metadata: {primary: 'exact_match,answer'}", "choose from: exact_match,none"),
        ("metadata: {primary: accuracy}", "names accuracy as primary metric"),
        ("metadata: {draft_tokens: many}", "Task plain: metadata draft_tokens is wrong"),
        ("generation_kwargs: {num_beams: 4}", "generation_kwargs num_beams is unknown"),
        ("generation_kwargs: {do_sample: 7}", "generation_kwargs do_sample is wrong"),
        ("num_fewshot: 4", "has 3 rows for examples"),
    ],
)
def test_a_file_that_would_fail_later_is_refused_as_it_is_loaded(
    more: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises((TaskError, ConfigError), match=said):
        load_task("plain", include_path=str(plain(tmp_path, more)))


def test_task_files_do_not_say_pocket_outside_their_folder() -> None:
    """Nothing in the package treats the pocket world as a special case; its commands are in cli/."""
    package = ROOT / "cowest_bench"
    special = [path.name for path in package.glob("*.py") if "pocket" in path.read_text()]
    assert special == []
    assert all("pocket" in str(path) for path in list_tasks(tasks_folder() / "pocket").values())


def test_templates_of_the_metadata_run_no_code() -> None:
    task = load_task("cowest_pocket_medical", seed=3, limit=1)
    assert task.render("{{ x }}!", {"x": "a"}) == "a!"
    with pytest.raises(SecurityError):
        task.render("{{ x.__class__.__mro__ }}", {"x": "a"})
