"""Plans: a run as one YAML file, what it will take, and running it.

    tasks: [cowest_medmcqa]
    weak: {name: hf/meta-llama/Meta-Llama-3-8B-Instruct, dtype: bfloat16}
    strong: {name: openai/gpt-4o, price: {input: 2.5, output: 10}}
    systems: [weak, strong, collab, collab-tuned]
    method: {k: 4}          # tune the weak model; without it, the weak model is taken as it is

``estimate`` counts the calls of a plan, and ``run`` makes them, in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cowest_bench.config import SYSTEMS, Limits, ModelSpec, Pairing, Role
from cowest_bench.errors import ConfigError, TaskError, suggestion
from cowest_bench.lab.evaluate import Cell, Progress, complete
from cowest_bench.lab.judge import RATING_TOKENS
from cowest_bench.method import Method, cowest
from cowest_bench.models import budget
from cowest_bench.models.budget import Budget
from cowest_bench.store import Results, Run
from cowest_bench.systems import DRAFT_TEMPERATURE, MAX_TOKENS
from cowest_bench.tasks import Split, Task, load_task, load_tasks, read_task_file
from cowest_bench.tasks.prompts import DEFAULT_FORMAT

BYTES_PER_TOKEN = 4.0  # of English prose under the tokenizers of large models, for estimates only


class BasePlan(BaseModel):
    """What is to be evaluated with any models; the fields are those of the YAML file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: tuple[str, ...] = Field(min_length=1)
    options: dict[str, Any] = Field(default_factory=dict)
    """Passed on to every task: ``data``, ``limit``, ``num_fewshot`` and so on (``load_task``)."""
    evaluator: ModelSpec | None = None
    """Who judges the answers of the feedback split, where the method's signal is ``evaluator``."""
    systems: tuple[str, ...] = ("weak", "strong", "collab")
    split: Split = "test"
    epochs: int = Field(1, ge=1)
    seed: int = 0
    format: str = DEFAULT_FORMAT
    temperature: float = DRAFT_TEMPERATURE
    method: Method | None = None
    """How the weak model is specialised and tuned; without it, it is taken as it is."""
    limits: Limits = Limits()
    budget: str | None = None

    @classmethod
    def load(cls, path: Path | None, changes: Mapping[str, Any] | None = None) -> Self:
        """Read a plan, if there is one, and put ``changes`` over it (None changes nothing).

        Raises:
            ConfigError: If the file is not there, is no YAML, or names what does not exist.
        """
        content: Any = {}
        if path is not None:
            try:
                content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            except OSError as error:
                raise ConfigError(f"The plan {path} cannot be read: {error.strerror}.") from error
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise ConfigError(f"The plan {path} is no YAML: {error}.") from error
        if not isinstance(content, dict):
            raise ConfigError(f"The plan {path} is no mapping; examples/ shows what it may say.")
        try:
            plan = cls.model_validate(_over(content, changes or {}))
        except ValidationError as error:
            raise ConfigError(_first(error, cls)) from error
        for name in plan.systems:
            if name not in SYSTEMS:
                raise ConfigError(f"There is no system {name}; {suggestion(name, SYSTEMS)}")
        return plan

    def loaded(self, split: Split | None = None) -> list[Task]:
        """The tasks, groups expanded."""
        if "group" in self.options:  # single tasks, found through their group
            return [load_task(name, split or self.split, **self.options) for name in self.tasks]
        return [
            task
            for name in self.tasks
            for task in load_tasks(name, split or self.split, **self.options)
        ]


class Plan(BasePlan):
    """What is to be evaluated with one model in each role."""

    weak: ModelSpec | None = None
    strong: ModelSpec | None = None

    def cell(self, task: Task, system: str) -> Cell:
        """A task under one system, where the weak model is taken as it is.

        Raises:
            CowestError: See ``Cell``.
        """
        return Cell(
            task,
            system,
            weak=self.weak,
            strong=self.strong,
            seed=self.seed,
            epochs=self.epochs,
            format=self.format,
            temperature=self.temperature,
        )

    @property
    def models(self) -> dict[Role, ModelSpec]:
        """The models that are given, by role."""
        given: dict[Role, ModelSpec | None] = {
            "weak": self.weak,
            "strong": self.strong,
            "evaluator": self.evaluator,
        }
        return {role: spec for role, spec in given.items() if spec is not None}

    @cached_property
    def pairing(self) -> Pairing:
        """The two models.

        Raises:
            ConfigError: If one of them is missing.
        """
        if self.weak is None or self.strong is None:
            raise ConfigError("The method needs two models; give --weak MODEL and --strong MODEL.")
        return Pairing(weak=self.weak, strong=self.strong)


def _over(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping over another; a model with another name is another model."""
    result = dict(content)
    for key, value in changes.items():
        before = result.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping) and "name" not in value:
            result[key] = _over(before, value)
        elif isinstance(value, Mapping) and isinstance(before, str):
            result[key] = {"name": before, **value}
        elif isinstance(value, Mapping):
            result[key] = {k: v for k, v in value.items() if v is not None}
        elif value is not None:
            result[key] = value
    return result


def _first(error: ValidationError, plan: type[BasePlan]) -> str:
    """The first thing that is wrong, as a sentence."""
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    if field == "tasks" and first["type"] == "missing":
        return "There are no tasks to run; name some under tasks: in a plan, or with --tasks NAME."
    if first["type"] == "extra_forbidden":
        return f"A plan has no field {field}; {suggestion(field, plan.model_fields)}"
    return f"The plan's {field} is wrong: {first['msg']}."


def run(
    plan: Plan,
    results: Results,
    progress: Callable[[str], Progress] | None = None,
    budget: Budget | None = None,
) -> Iterator[Run]:
    """Run a plan and yield every run of its split as it is finished.

    With a method, nothing is done beyond the last system that is wanted.

    Args:
        plan: What to run; what is finished already is not run again.
        results: Where it is recorded.
        progress: Gives for a task's domain what is told how far it is.
        budget: What may be spent, shared with other plans; by default what the plan says.

    Raises:
        CowestError: See ``evaluate`` and ``cowest``.
    """
    if budget is None and plan.budget:
        budget = Budget.parse(plan.budget)
    for task in plan.loaded():
        tell = progress(task.meta.domain or task.name) if progress else None
        common: dict[str, Any] = {"limits": plan.limits, "budget": budget, "progress": tell}
        if plan.method is not None:
            how = plan.method.model_copy(
                update={"format": plan.format, "temperature": plan.temperature}
            )
            trained = cowest(
                task,
                plan.pairing,
                results=results,
                method=how,
                evaluator=plan.evaluator,
                seed=plan.seed,
                **common,
            )
            last = None if TUNED in plan.systems else len(_untuned(plan))
            yield from (run for run in islice(trained, last) if run.system in plan.systems)
        else:
            for system in plan.systems:
                yield complete(plan.cell(task, system), results, **common)


TUNED = "collab-tuned"


def _untuned(plan: Plan) -> tuple[str, ...]:
    """The systems that the method runs before it tunes, in its order, up to the last one wanted."""
    order = ("weak", "strong", "collab")
    wanted = len(order) if TUNED in plan.systems else 1 + max(map(order.index, plan.systems))
    return order[:wanted]


# --- what it will take ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """What one cell of a plan takes.

    Attributes:
        task: Its task.
        split: Its split.
        system: Its system.
        questions: How many there are.
        calls: To the model in each role.
        input_tokens: Of the prompts, by role.
        output_tokens: Of the answers, by role; the most they can be, where nothing was measured.
        basis: What the tokens are known from.
        at_most: Whether early stopping may make it less.
        measured: Whether the tokens of all roles are those of earlier runs.
    """

    task: str
    split: str
    system: str
    questions: int
    calls: dict[Role, int]
    input_tokens: dict[Role, float]
    output_tokens: dict[Role, float]
    basis: str
    at_most: bool = False
    measured: bool = False

    def cost(self, plan: Plan) -> float:
        """US dollars, at the prices in the plan."""
        return sum(
            budget.price(spec.price, self.input_tokens[role], self.output_tokens[role])
            for role, spec in plan.models.items()
            if role in self.calls
        )


@dataclass(frozen=True)
class _Split:
    """How much there is to ask on a task's split."""

    task: str
    split: Split
    questions: int
    repeats: int
    prompt: float  # tokens, in the mean
    draft: int  # tokens, at most
    answer: int
    basis: str


def estimate(plan: Plan, results: Results, measured: Measured | None = None) -> list[Estimate]:
    """The cells of a plan with their calls and tokens.

    Calls are counted on the data where it can be loaded, and otherwise (a data set on the hub, without
    network) from what the task's file states. Tokens are what earlier runs in ``results`` took for the
    same task, system and models (``measured``, if that is known already); or estimated from the
    prompts' lengths and the longest answers.

    Raises:
        TaskError: If neither the data nor the task's file says how many questions there are.
    """
    known = tokens_measured(results) if measured is None else measured
    return [_with_measured(cell, plan, known) for name in plan.tasks for cell in _cells(plan, name)]


def _cells(plan: Plan, name: str) -> Iterator[Estimate]:
    """The cells of one name among a plan's tasks, as ``run`` makes them."""
    how = plan.method
    if how is None:
        for split in _splits(plan, name, plan.split):
            yield from (_cell(split, system, plan.epochs) for system in plan.systems)
        return
    tests = _splits(plan, name, plan.split)
    yield from (_cell(test, system, 1) for test in tests for system in _untuned(plan))
    if TUNED not in plan.systems:
        return
    feedback, dev = (
        {each.task: each for each in _splits(plan, name, of)} for of in ("feedback", "dev")
    )
    for test in tests:
        for _ in range(how.rounds):
            yield _cell(feedback[test.task], "collab", how.k)
            yield _cell(feedback[test.task], "strong", 1)
            if how.signal == "evaluator":
                yield _judging(feedback[test.task], how.k)
            scored = 1 + how.dpo.steps // how.dpo.eval_steps
            yield replace(_cell(dev[test.task], TUNED, scored), at_most=True)
            yield _cell(test, TUNED, 1)


def _cell(of: _Split, system: str, epochs: int) -> Estimate:
    calls = of.questions * epochs * of.repeats
    roles = SYSTEMS[system]
    drafts = len(roles) == 2
    prompt = {"weak": of.prompt, "strong": of.prompt + (of.draft if drafts else 0)}
    answer = {"weak": of.draft if drafts else of.answer, "strong": of.answer}
    return Estimate(
        of.task,
        of.split,
        system,
        of.questions,
        dict.fromkeys(roles, calls),
        {role: calls * prompt[role] for role in roles},
        {role: float(calls * answer[role]) for role in roles},
        of.basis,
    )


def _splits(plan: Plan, name: str, split: Split) -> list[_Split]:
    """How much there is to ask, from the data or else from what the task's file states."""
    try:
        tasks = load_tasks(name, split, **plan.options)
    except TaskError:
        stated, generation = read_task_file(name, plan.options.get("include_path"))
        local = "data" in plan.options or "COWEST_DATA" in os.environ
        if local or split not in stated.sizes or stated.prompt_tokens is None:
            raise  # what is wrong with files that were named is not to be guessed around
        return [
            _Split(
                name,
                split,
                min(plan.options.get("limit", stated.sizes[split]), stated.sizes[split]),
                1,
                stated.prompt_tokens,
                stated.draft_tokens,
                generation.get("max_gen_toks", MAX_TOKENS),
                "sizes and lengths that the task's file states",
            )
        ]
    return [
        _Split(
            task.name,
            split,
            len(task.samples),
            task.repeats,
            _mean_bytes(task) / BYTES_PER_TOKEN,
            task.meta.draft_tokens,
            task.generation.get("max_gen_toks", MAX_TOKENS),
            "prompts at 4 bytes a token, answers at their longest",
        )
        for task in tasks
    ]


def _mean_bytes(task: Task) -> float:
    sizes = [sum(len(m["content"].encode()) for m in sample.messages) for sample in task.samples]
    return sum(sizes) / len(sizes)


def _judging(of: _Split, k: int) -> Estimate:
    """Every draft's answer beside the one without it, in both orders."""
    calls = 2 * k * of.questions
    return Estimate(
        of.task,
        of.split,
        "evaluator",
        of.questions,
        {"evaluator": calls},
        {"evaluator": calls * (of.prompt + 2 * of.answer)},
        {"evaluator": float(calls * RATING_TOKENS)},
        of.basis,
        at_most=True,  # equal answers need no judge
    )


Measured = dict[tuple[str, str, Role, str], tuple[float, float]]


def tokens_measured(results: Results) -> Measured:
    """Mean tokens in and out of a call, by task, system, role and model, in the runs that are stored."""
    means: Measured = {}
    for run in results.all_runs() if results.runs.is_dir() else ():
        rows = results.samples(run)
        for role, spec in run.models.items():
            calls = sum(getattr(row, f"{role}_calls") for row in rows)
            if calls:
                tokens = (
                    sum(getattr(row, f"{role}_{way}_tokens") or 0 for row in rows) / calls
                    for way in ("input", "output")
                )
                means[run.task, run.system, role, spec.name] = (next(tokens), next(tokens))
    return means


def _with_measured(cell: Estimate, plan: Plan, measured: Measured) -> Estimate:
    """The cell with the tokens that the same calls took before, where they are known."""
    known = {
        role: measured[key]
        for role, spec in plan.models.items()
        if role in cell.calls and (key := (cell.task, cell.system, role, spec.name)) in measured
    }
    if not known:
        return cell
    at = {role: cell.calls[role] for role in known}
    measured_all = set(known) == set(cell.calls)
    basis = "tokens as in earlier runs"
    if not measured_all:
        basis = f"tokens of {' and '.join(known)} as in earlier runs; else {cell.basis}"
    return replace(
        cell,
        input_tokens=cell.input_tokens | {role: at[role] * known[role][0] for role in known},
        output_tokens=cell.output_tokens | {role: at[role] * known[role][1] for role in known},
        basis=basis,
        measured=measured_all,
    )
