"""Finding and loading tasks: this package's own, those of a folder, and those built into lm-eval."""

from __future__ import annotations

import contextlib
import json
import logging
import random
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from cowest_bench.errors import TaskError, suggestion
from cowest_bench.tasks.task import Metadata, Split, Task

#: What ``lm_eval`` takes as options of its own; everything else is metadata of the task.
_LM_EVAL_OPTIONS = (
    "apply_chat_template",
    "fewshot_as_multiturn",
    "gen_kwargs",
    "group",
    "include_path",
    "limit",
    "num_fewshot",
    "system_instruction",
)
_FEWSHOT_SEED = 1234  # lm-eval's default


def tasks_folder() -> Path:
    """The folder of task files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    packaged = package / "_tasks"
    return packaged if packaged.is_dir() else package.parent / "tasks"


def list_tasks(folder: Path | None = None) -> dict[str, Path]:
    """Task names and their files.

    Raises:
        TaskError: If a file is not valid YAML. (lm-eval skips such a file silently, and then says that
            the task is not found.)
    """
    found = {}
    for path in sorted((folder or tasks_folder()).rglob("*.yaml")):
        try:
            config = yaml.load(path.read_text(encoding="utf-8"), _TaskLoader)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            problem = getattr(error, "problem", None) or str(error)
            mark = getattr(error, "problem_mark", None)
            line = f" line {mark.line + 1}" if mark else ""
            raise TaskError(f"Task file {path}{line} is not valid YAML: {problem}.") from error
        if isinstance(config, dict) and isinstance(config.get("task"), str):
            found[config["task"]] = path
    return found


class _TaskLoader(yaml.SafeLoader):
    """Reads task files without importing the functions that they name."""


_TaskLoader.add_constructor("!function", lambda loader, node: str(node.value))


def load_task(name: str, split: Split = "test", **options: Any) -> Task:
    """Load a task on one of its splits.

    Args:
        name: Name in a task file of this package, of ``include_path``, or of lm-eval.
        split: Which split to ask; ``Task.on`` gives the others.
        **options: Those of ``lm_eval`` by their names there: ``include_path`` (a folder of task
            files), ``num_fewshot``, ``system_instruction``, ``fewshot_as_multiturn``,
            ``apply_chat_template``, ``gen_kwargs``, ``limit``; ``group``, if the task belongs to one;
            all others, such as ``seed`` or ``data``, are added to the task's metadata.

    Raises:
        TaskError: If the task is unknown, broken, or of a kind that cannot be run.
    """
    tasks = load_tasks(options.get("group", name), split, **options)
    for task in tasks:
        if task.name == name:
            return task
    raise TaskError(
        f"{name} is a group; choose from its tasks: {', '.join(t.name for t in tasks)}."
    )


def load_tasks(name: str, split: Split = "test", **options: Any) -> list[Task]:
    """Load a task, or every task of a group or tag; arguments and errors as for ``load_task``."""
    return _load(name, split, json.dumps(options, sort_keys=True))


def read_task_file(
    name: str, include_path: str | Path | None = None
) -> tuple[Metadata, dict[str, Any]]:
    """A task's metadata and generation settings, without loading its data; empty for lm-eval's own.

    Raises:
        TaskError: If the file cannot be read.
    """
    from lm_eval.tasks._yaml_loader import load_yaml

    known = _known(_folders(include_path))
    config = load_yaml(known[name], resolve_func=False) if name in known else {}
    return Metadata.of(name, config.get("metadata")), config.get("generation_kwargs") or {}


def _folders(include_path: str | Path | None) -> list[Path]:
    return [tasks_folder(), *([Path(include_path)] if include_path else [])]


def _known(folders: list[Path]) -> dict[str, Path]:
    return {task: path for folder in folders for task, path in list_tasks(folder).items()}


@lru_cache(maxsize=32)
def _load(name: str, split: Split, options: str) -> list[Task]:
    given = json.loads(options)
    lm_options = {key: given[key] for key in _LM_EVAL_OPTIONS if key in given}
    metadata = {key: value for key, value in given.items() if key not in _LM_EVAL_OPTIONS}
    folders = _folders(lm_options.get("include_path"))
    known = _known(folders)
    manager = _manager(*folders, metadata=json.dumps(metadata), defaults=False)
    if name not in manager.task_index:
        manager = _manager(*folders, metadata=json.dumps(metadata), defaults=True)
    if name not in manager.task_index:
        raise TaskError(f"There is no task {name}; {suggestion(name, known)}")
    try:
        with _seeded():
            loaded = manager.load(name)["tasks"]
    except TaskError:
        raise
    except Exception as error:  # the file's own functions and templates run here
        where = f" ({known[name]})" if name in known else ""
        raise TaskError(f"Task {name}{where} cannot be loaded: {error}.") from error
    return [_configured(lm, name, split, given, lm_options) for lm in loaded.values()]


def _configured(
    lm: Any, found_by: str, split: Split, options: dict[str, Any], lm_options: dict[str, Any]
) -> Task:
    """Apply the options as ``lm_eval`` does (``evaluator.simple_evaluate``)."""
    if "gen_kwargs" in lm_options and lm.OUTPUT_TYPE == "generate_until":
        lm.set_config("generation_kwargs", dict(lm_options["gen_kwargs"]), update=True)
    shots = lm.get_config("num_fewshot")
    if shots != 0:  # a task that says 0 itself keeps it
        lm.set_config("num_fewshot", lm_options.get("num_fewshot", shots or 0))
    lm.set_fewshot_seed(_FEWSHOT_SEED)
    if lm.task_name != found_by:
        options = {**options, "group": found_by}
    turns = ("apply_chat_template", "fewshot_as_multiturn", "limit", "system_instruction")
    return Task(lm, split, options, **{key: lm_options[key] for key in turns if key in lm_options})


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Seeds Python's and numpy's generators as ``lm_eval`` does: some tasks shuffle as they load."""
    import numpy as np

    before, before_numpy = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(_FEWSHOT_SEED)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(before_numpy)


@lru_cache(maxsize=8)
def _manager(*folders: Path, metadata: str, defaults: bool) -> Any:
    """lm-eval's index of tasks; with its own thousands of tasks it takes seconds to build."""
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return TaskManager(
        include_path=[str(folder) for folder in folders],
        include_defaults=defaults,
        metadata=json.loads(metadata),
    )
