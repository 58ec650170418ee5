"""Tasks: lm-eval's YAML format, its prompts and its scoring, on Inspect's engine.

A task file runs unchanged under ``lm_eval --include_path tasks``. Here lm-eval's own code builds the
requests, filters and scores the answers and aggregates the scores, so that numbers are equal to
lm-eval's to the last digit; only the generation in between is Inspect's. What the benchmark needs
beyond lm-eval stands in the file's ``metadata`` (``Metadata``).
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import json
import logging
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cowest_bench.errors import TaskError, suggestion
from cowest_bench.store import content_hash
from cowest_bench.tasks.answers import STDERR
from cowest_bench.tasks.prompts import FORMATS, Prompts

if TYPE_CHECKING:
    from lm_eval.api.task import ConfigurableTask

Split = Literal["train", "feedback", "dev", "test"]
Message = dict[str, str]  # role and content

BYTES_PER_TOKEN = 4.0  # of English prose under the tokenizers of large models, for estimates only


class Metadata(BaseModel):
    """What a task file says beyond lm-eval's fields, under ``metadata``."""

    model_config = ConfigDict(frozen=True, extra="allow")

    version: float | str = 0
    domain: str = ""
    suite: str | None = None
    """Name that tasks share which are shown side by side."""
    primary: str | None = None
    """``metric,filter`` whose per-sample value is the score; by default the first one."""
    splits: dict[Split, str] = Field(default_factory=dict)
    """Which of the data set's splits serve as train, feedback, dev and test."""
    sft_target: str | None = None
    """Template of what the weak model learns to write for a row of the train split."""
    cluster: str | None = None
    """Template of what rows share that are not independent (a passage, a dialogue)."""
    answer_prefix: str | None = None
    """What the strong model writes before its answer; the gold log-probability is taken there."""
    prompts: dict[str, Prompts] = Field(default_factory=dict)
    """Draft and refinement prompts by interaction format, instead of ``prompts.FORMATS``."""
    draft_tokens: int = 512
    """How long a draft may be, in tokens."""
    sizes: dict[Split, int] = Field(default_factory=dict)
    """Questions of each split, for plans that are made where the data cannot be loaded."""
    prompt_tokens: float | None = None
    """Mean length of a question, likewise."""

    @property
    def prompts_by_format(self) -> dict[str, Prompts]:
        """What the two models are asked, for every interaction format of the task."""
        return self.prompts or FORMATS


class TaskSample(BaseModel):
    """One question as lm-eval builds it: what a model may see, and what only the scorer may."""

    model_config = ConfigDict(frozen=True)

    id: int
    messages: list[Message]
    target: str
    accepted: tuple[str, ...]
    """Every accepted gold answer; ``target`` is the only one, or all of them as JSON."""
    cluster: str | None


class Task:
    """A task on one split, as lm-eval loads it.

    Attributes:
        name: Name in the task file.
        split: ``train``, ``feedback``, ``dev`` or ``test``.
        options: What ``load_task`` was given besides; ``load_task(name, split, **options)`` is this
            task again.
        meta: What the file says for this benchmark.
        limit: How many questions of the split are asked, or None for all.
    """

    def __init__(
        self,
        lm: ConfigurableTask,
        split: Split,
        options: Mapping[str, Any],
        *,
        system_instruction: str | None = None,
        fewshot_as_multiturn: bool = True,
        apply_chat_template: bool = True,
        limit: int | None = None,
    ) -> None:
        self.lm = lm
        self.name = str(lm.task_name)
        self.split = split
        self.options = dict(options)
        self.limit = limit
        self._turns = {
            "system_instruction": system_instruction,
            "apply_chat_template": apply_chat_template,
            "fewshot_as_multiturn": fewshot_as_multiturn,
        }
        self.meta = _metadata(self.name, lm.config.metadata)
        _refuse_other_kinds(lm, self.name)
        default = lm.config.test_split or lm.config.validation_split
        wanted = self._dataset_split(split, default)
        if (
            wanted != default
        ):  # else lm-eval's own state stays untouched: few-shot draws depend on it
            lm.config.test_split = wanted
        lm.task_docs = lm.eval_docs

    def _dataset_split(self, split: Split, default: str | None) -> str:
        name = self.meta.splits.get(split, default if split == "test" else None)
        if name is None or name not in self.lm.dataset:
            raise TaskError(
                f"Task {self.name} has no {split} split; name one of its data set's splits "
                f"({', '.join(self.lm.dataset)}) under metadata: splits: in the task file."
            )
        return str(name)

    def on(self, split: Split) -> Task:
        """The same task on another split."""
        return load_task(self.name, split, **self.options)

    @property
    def splits(self) -> list[Split]:
        """The splits that the data set has, as the file names them; test in any case."""
        named = self.meta.splits
        return [s for s in get_args(Split) if s == "test" or named.get(s) in self.lm.dataset]

    @property
    def leaks(self) -> dict[str, int]:
        """Rows dropped since they are test questions, by the split they were in, where counted."""
        return dict(getattr(self.lm.dataset, "leaks", {}))

    @property
    def docs(self) -> Any:
        """The rows of the split, in order."""
        return self.lm.task_docs

    @cached_property
    def samples(self) -> list[TaskSample]:
        """The questions of the split, in document order.

        All are built in order, because few-shot examples are drawn from one generator.
        """
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar for each split
            self.lm.build_all_requests(
                rank=0, world_size=1, limit=self.limit, chat_template=chat_as_json, **self._turns
            )
        return [
            TaskSample(
                id=instance.doc_id,
                messages=messages_of(instance.args[0])[0],
                target=_text(gold := self.lm.doc_to_target(instance.doc)),
                accepted=tuple(map(_text, gold if isinstance(gold, list) else [gold])),
                cluster=self._cluster(instance.doc),
            )
            for instance in self.lm.instances
        ]

    def _cluster(self, doc: Mapping[str, Any]) -> str | None:
        """What a row shares with others, or None where that field is empty: then it is on its own."""
        shared = self.render(self.meta.cluster, doc).strip() if self.meta.cluster else ""
        return None if shared in ("", "None") else shared

    def prompts(self, format: str) -> Prompts:
        """The prompts of an interaction format: the task's own, or else those of ``FORMATS``.

        Raises:
            TaskError: If the task brings prompts of its own, but not for this format.
        """
        known = self.meta.prompts_by_format
        if format not in known:
            raise TaskError(
                f"Task {self.name} has no prompts for the interaction format {format}; choose one "
                f"of: {', '.join(known)}."
            )
        return known[format]

    @property
    def plain(self) -> bool:
        """Whether a model is asked with text as it stands, without a chat template."""
        return not self._turns["apply_chat_template"]

    @cached_property
    def generation(self) -> dict[str, Any]:
        """lm-eval's generation settings, as the task gives them."""
        _ = self.samples
        return dict(self.lm.instances[0].args[1])

    @cached_property
    def repeats(self) -> int:
        """How often a question is answered before it is scored (majority votes, pass@k)."""
        return int(self.lm.config.repeats or 1)

    def render(self, template: str, doc: Mapping[str, Any]) -> str:
        """A template of the task file filled in with a row's fields (Jinja, sandboxed by lm-eval)."""
        return str(_compiled(template).render(**doc))

    def score(self, doc_id: int, completions: list[str]) -> tuple[dict[str, Any], str]:
        """Filter and score what was answered to a question, with lm-eval's own code.

        Args:
            doc_id: Which row of the split.
            completions: The answers, as many as ``repeats``.

        Returns:
            The value of every ``metric,filter`` (a number, or what lm-eval's aggregation of that
            metric expects), and the answer as the primary filter extracted it.
        """
        from lm_eval.api.instance import Instance

        doc = self.docs[doc_id]
        instance = Instance("generate_until", doc, ("", {}), 0, (self.name, doc_id, self.repeats))
        instance.resps = list(completions)
        values: dict[str, Any] = {}
        for ensemble in self.lm._filters:
            ensemble.apply([instance])
            results = self.lm.process_results(doc, [instance.filtered_resps[ensemble.name]])
            values |= {f"{metric},{ensemble.name}": value for metric, value in results.items()}
        wanted = self._primary_key(values).rpartition(",")[2]
        plain: dict[str, Any] = json.loads(json.dumps(values, default=_plain))
        return plain, _text(instance.filtered_resps[wanted])

    def _primary_key(self, values: Mapping[str, Any]) -> str:
        key = self.meta.primary or next(iter(values))
        if key not in values:
            raise TaskError(
                f"Task {self.name} names {key} as primary metric; choose from: {', '.join(values)}."
            )
        return key

    def primary(self, values: Mapping[str, Any]) -> float:
        """The score of one question among the values of all its metrics.

        A metric of the whole split (BLEU, macro-F1) counts as what it is on that question alone.
        """
        key = self._primary_key(values)
        value = values[key]
        if not isinstance(value, int | float):
            value = self.lm.aggregation()[key.rpartition(",")[0]]([value])
        return float(value)

    def aggregate(self, values: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """All metrics over the split, from every question's values in document order.

        The order matters to the last digit of a float sum. Standard errors that lm-eval does not
        know are bootstrapped where ``answers.STDERR`` says how, and else left out.
        """
        from lm_eval.evaluator_utils import _compute_task_aggregations

        raw: dict[tuple[str, str], list[Any]] = {}
        for row in values:
            for key, value in row.items():
                metric, _, name = key.rpartition(",")
                raw.setdefault((metric, name), []).append(value)
        metrics, _ = _compute_task_aggregations(self.lm, raw)
        for (metric, name), items in raw.items():
            bootstrapped = STDERR.get(self.lm.aggregation().get(metric))
            if bootstrapped is not None and len(items) > 1:
                metrics[f"{metric}_stderr,{name}"] = bootstrapped(items)
        return {
            key: float(value) for key, value in metrics.items() if isinstance(value, int | float)
        }

    @cached_property
    def size(self) -> int:
        """How many samples are asked."""
        return len(self.samples)

    @cached_property
    def prompt_bytes(self) -> float:
        """Mean length of a sample's conversation, in bytes of UTF-8."""
        sizes = [sum(len(m["content"].encode()) for m in each.messages) for each in self.samples]
        return sum(sizes) / len(sizes)

    @cached_property
    def questions_id(self) -> str:
        """Hash of everything that a model may be shown or told: conversations, settings, repeats."""
        asked = [(sample.id, sample.messages) for sample in self.samples]
        return content_hash([asked, self.generation, self.repeats, self.plain])

    @cached_property
    def gold_id(self) -> str:
        """Hash of the accepted answers, which only scorers see."""
        return content_hash([(sample.id, sample.accepted) for sample in self.samples])

    @cached_property
    def data_id(self) -> str:
        """Hash that two runs share if they can be compared: the same samples, gold and settings."""
        content = [sample.model_dump(exclude={"accepted"}) for sample in self.samples]
        known = [self.meta.version, self.generation, self.meta.primary, content, self.plain]
        return content_hash(known)

    @cached_property
    def scoring(self) -> dict[str, Any]:
        """Everything that can change a score, or a label, of the same answer.

        Functions count with the syntax tree of their file, so that changed code is noticed and a
        changed comment is not.
        """
        config = self.lm.config
        return {
            "gold": self.gold_id,
            "clusters": content_hash([(each.id, each.cluster) for each in self.samples]),
            "filters": config_as_json(config.filter_list),
            "metrics": config_as_json(config.metric_list),
            "process_results": config_as_json(config.process_results),
            "class": config_as_json(type(self.lm)),
            "primary": self.meta.primary,
            "version": self.meta.version,
            "domain": self.meta.domain,
            "suite": self.meta.suite,
        }

    @cached_property
    def score_id(self) -> str:
        """Hash of ``scoring``."""
        return content_hash(self.scoring)

    @cached_property
    def sft_id(self) -> str:
        """Hash of the rows for supervised fine-tuning."""
        return content_hash(self.sft_rows())

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process loads the task by its name."""
        return _loaded_again, (self.name, self.split, self.options)

    def sft_rows(self) -> list[dict[str, list[Message]]]:
        """Conversational prompt-completion rows for supervised fine-tuning."""
        template = self.meta.sft_target
        if template is None:
            raise TaskError(f"Task {self.name} cannot be trained on: its file has no sft_target.")
        return [
            {
                "prompt": sample.messages,
                "completion": [
                    {"role": "assistant", "content": self.render(template, self.docs[sample.id])}
                ],
            }
            for sample in self.samples
        ]


def _loaded_again(name: str, split: Split, options: dict[str, Any]) -> Task:
    return load_task(name, split, **options)


def config_as_json(value: Any) -> Any:
    """A part of a task's configuration as JSON; a function or class is its name and its file's code."""
    if isinstance(value, Mapping):
        return {str(key): config_as_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [config_as_json(each) for each in value]
    if isinstance(value, partial):
        return [
            config_as_json(value.func),
            config_as_json(value.args),
            config_as_json(value.keywords),
        ]
    if callable(value):
        # lm-eval names the module of a task's own functions by its path, which may move.
        module = value.__module__.rpartition("/")[2]
        name = f"{module}.{getattr(value, '__qualname__', type(value).__name__)}"
        return [name, *_code_of(value)]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _code_of(value: Any) -> list[str]:
    """Hash of the file in which something is defined; nothing for lm-eval's own, which has a version."""
    try:
        file = inspect.getsourcefile(value)
    except TypeError:
        return []
    if file is None or not Path(file).is_file() or value.__module__.startswith("lm_eval."):
        return []
    return [_syntax_hash(file, Path(file).stat().st_mtime_ns)]


@lru_cache(maxsize=64)
def _syntax_hash(file: str, changed: int) -> str:
    return content_hash(ast.dump(ast.parse(Path(file).read_text(encoding="utf-8"))))


def validate_task(task: Task) -> dict[str, tuple[int, int]]:
    """How many accepted gold answers score 1.0, of how many, on every split but train.

    A gold answer is put behind the task's ``answer_prefix``, as a model would write it.
    """
    prefix = f"{task.meta.answer_prefix} " if task.meta.answer_prefix else ""
    counts: dict[str, tuple[int, int]] = {}
    for split in task.splits:
        if split == "train":
            continue
        on = task.on(split)
        scores = [
            on.primary(on.score(sample.id, [prefix + gold])[0])
            for sample in on.samples
            for gold in sample.accepted
        ]
        counts[split] = (sum(score == 1.0 for score in scores), len(scores))
    return counts


def describe_task(task: Task) -> dict[str, tuple[int, dict[str, float]]]:
    """The size of each split, and the share of each gold answer where there are two to ten."""
    told: dict[str, tuple[int, dict[str, float]]] = {}
    for split in task.splits:
        docs, field = task.on(split).docs, task.lm.config.doc_to_target
        # A whole column is read at once; rendering a template for 180,000 rows takes a minute.
        column = isinstance(field, str) and field in docs.features
        golds = docs[field] if column else map(task.lm.doc_to_target, docs)
        counts = Counter(map(_text, golds))
        shares = {gold: count / len(docs) for gold, count in counts.most_common()}
        told[split] = len(docs), shares if 1 < len(shares) <= 10 else {}
    return told


@lru_cache(maxsize=64)
def _compiled(template: str) -> Any:
    """As ``lm_eval.utils.apply_template`` compiles it for every row anew."""
    from lm_eval.utils import env

    return env.from_string(template)


def _refuse_other_kinds(lm: ConfigurableTask, name: str) -> None:
    """Only text in, text out, and nothing a model wrote is ever executed."""
    if lm.OUTPUT_TYPE != "generate_until":
        raise TaskError(
            f"Task {name} is of type {lm.OUTPUT_TYPE}, which compares log-probabilities of given "
            "answers; a collaboration answers in text, so choose a generate_until task."
        )
    if getattr(lm, "UNSAFE_CODE", False):
        raise TaskError(f"Task {name} executes code that a model wrote, which is refused here.")
    if getattr(lm, "MULTIMODAL", False):
        raise TaskError(f"Task {name} needs images or sound; choose a task that is text alone.")


def _plain(value: Any) -> Any:
    """Numpy's scalars and arrays as JSON has them."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def chat_as_json(messages: list[Message], add_generation_prompt: bool = True) -> str:
    """Stand in for a chat template, so that lm-eval hands over messages instead of text."""
    return _JSON_MARK + json.dumps(messages)


def messages_of(context: str) -> tuple[list[Message], bool]:
    """The messages of a context that ``chat_as_json`` wrote, or one turn of plain text; and if it is plain.

    (lm-eval says nowhere which of the two it hands over, and caches contexts if asked to.)
    """
    if context.startswith(_JSON_MARK):
        return list(json.loads(context.removeprefix(_JSON_MARK))), False
    return [{"role": "user", "content": context}], True


_JSON_MARK = "\x02messages\x03"  # no text begins with it


def _text(value: Any) -> str:
    """A gold or filtered answer as text; of several accepted ones, all."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _metadata(name: str, metadata: Any) -> Metadata:
    try:
        return Metadata.model_validate(metadata or {})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise TaskError(f"Task {name}: metadata: {field}: {first['msg']}.") from error


# --- finding tasks --------------------------------------------------------------------------------


def tasks_folder() -> Path:
    """The folder of task files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    packaged = package / "_tasks"
    return packaged if packaged.is_dir() else package.parent / "tasks"


def list_tasks(folder: Path | None = None) -> dict[str, Path]:
    """Task names and their files.

    Raises:
        TaskError: If a file is no readable YAML. lm-eval itself skips such a file silently, and then
            says that the task is not found.
    """
    found = {}
    for path in sorted((folder or tasks_folder()).rglob("*.yaml")):
        try:
            # The loader is a subclass of SafeLoader: `!function` tags become plain text.
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
    """Reads task files without importing what they name."""


_TaskLoader.add_constructor("!function", lambda loader, node: str(node.value))


def load_task(name: str, split: Split = "test", **options: Any) -> Task:
    """Load a task on one of its splits.

    Args:
        name: Name in a task file: of this package, of ``include_path``, or built into lm-eval.
        split: Which split to ask; the others are reached through ``Task.on``.
        **options: Those of ``lm_eval`` by their names there: ``include_path`` (a folder of task
            files), ``num_fewshot``, ``system_instruction``, ``fewshot_as_multiturn``,
            ``apply_chat_template``, ``gen_kwargs``, ``limit``; ``group``, the group through which
            the task was found; all others are added to the task's metadata, such as ``seed`` or
            ``data``.

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
    """What a task's file says, without loading the task and its data.

    Tasks that are neither this package's nor in ``include_path`` (lm-eval's own) say nothing.

    Returns:
        Its metadata for this benchmark, and its generation settings in lm-eval's names.

    Raises:
        TaskError: If it cannot be read.
    """
    from lm_eval.tasks._yaml_loader import load_yaml

    folders = [tasks_folder(), *([Path(include_path)] if include_path else [])]
    known = {task: path for folder in folders for task, path in list_tasks(folder).items()}
    config = load_yaml(known[name], resolve_func=False) if name in known else {}
    return _metadata(name, config.get("metadata")), config.get("generation_kwargs") or {}


@lru_cache(maxsize=32)
def _load(name: str, split: Split, options: str) -> list[Task]:
    given = json.loads(options)
    lm_options = {key: given[key] for key in _LM_EVAL_OPTIONS if key in given}
    metadata = {key: value for key, value in given.items() if key not in _LM_EVAL_OPTIONS}
    folders = [tasks_folder()]
    if "include_path" in lm_options:
        folders.append(Path(lm_options["include_path"]))
    known = {task: path for folder in folders for task, path in list_tasks(folder).items()}
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
    """Python's and numpy's generators as ``lm_eval`` seeds them: some tasks shuffle as they load."""
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
    """lm-eval's index of tasks; with its own thousands it takes seconds to make."""
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return TaskManager(
        include_path=[str(folder) for folder in folders],
        include_defaults=defaults,
        metadata=json.loads(metadata),
    )
