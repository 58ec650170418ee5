"""The lab that only notes steps: the dry run, and the work list of a sweep.

What a plan takes is counted on the same steps that ``Local`` makes, less what is stored already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from cowest_bench.config import ModelSpec, Role
from cowest_bench.lab.evaluate import Evaluate
from cowest_bench.lab.lab import Lab
from cowest_bench.lab.step import Step, origin_of, unresolved_models
from cowest_bench.lab.trainings import Align, Checkpoint
from cowest_bench.models.budget import price
from cowest_bench.store import Results
from cowest_bench.systems import Lengths
from cowest_bench.systems.turn import MAX_TOKENS
from cowest_bench.tasks import BYTES_PER_TOKEN, StatedTask, Task

S = TypeVar("S", bound=Step)


class Planned(Lab):
    """Notes every step once, in the order in which it can be made.

    Args:
        offline: Whether models on a hub that cannot be asked now are planned all the same.
    """

    def __init__(self, *, offline: bool = False) -> None:
        self.steps: dict[str, Step] = {}
        self._offline = offline

    def do(self, step: S) -> S:
        """Check that a step can be made, and note it.

        Raises:
            CowestError: If it is known already that it would fail.
        """
        step.check()  # first: a model that is not there has no id
        with unresolved_models(self._offline):
            self.steps.setdefault(step.id, step)
        return step


# --- what it takes --------------------------------------------------------------------------------

Measured = Mapping[tuple[str, str, Role, str], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is still to be asked in one evaluation of a plan.

    Attributes:
        step: The evaluation.
        samples: How many there are.
        answers: How many answers are missing, of all its epochs.
        calls: To the model in each role.
        input_tokens: Of the prompts, by role.
        output_tokens: Of the answers, by role; the most they can be, where nothing was measured.
        basis: What the tokens are known from.
        at_most: Whether early stopping may make it less.
        measured: Whether the tokens of all roles are those of earlier runs.
    """

    step: Evaluate
    samples: int
    answers: int
    calls: dict[Role, int]
    input_tokens: dict[Role, float]
    output_tokens: dict[Role, float]
    basis: str
    at_most: bool
    measured: bool

    @property
    def models(self) -> dict[Role, ModelSpec]:
        """The models that are asked, as a user named them."""
        return {role: origin_of(model) for role, model in self.step.models.items()}

    @property
    def cost(self) -> float:
        """US dollars, at the models' prices."""
        return sum(
            price(spec.price, self.input_tokens[role], self.output_tokens[role])
            for role, spec in self.models.items()
        )


def forecast(steps: Iterable[Step], results: Results) -> list[Forecast]:
    """What the evaluations of steps still have to ask, with calls and tokens; nothing if finished.

    Calls are counted on the data where it can be loaded, and otherwise (a data set on the hub, without
    network) from what the task's file states. Tokens are those that earlier runs took for the same
    task, system and models; or estimated from the prompts' lengths and the longest answers.
    """
    known = tokens_measured(results)
    with unresolved_models():
        asking = list(_asking(steps, results))
        return [_forecast(step, results, known, at_most) for step, at_most in asking]


def _asking(steps: Iterable[Step], results: Results) -> Iterator[tuple[Evaluate, bool]]:
    """The evaluations of steps, and whether early stopping may leave some out."""
    noted: set[str] = set()
    for step in steps:
        several = [(step, False)] if isinstance(step, Evaluate) else []
        if isinstance(step, Align) and not step.is_made(results):
            certain = step.settings.patience  # training never ends before so many are scored
            several = [(each, i > certain) for i, each in enumerate(step.candidates())]
        for each, at_most in several:
            if each.id not in noted:
                noted.add(each.id)
                yield each, at_most


def unanswered(step: Evaluate, results: Results) -> int:
    """How many answers an evaluation still lacks."""
    run = step.run(results)
    total = step.task.size * step.epochs
    if run is None or isinstance(step.task, StatedTask):
        return total
    checkpoint = any(isinstance(model, Checkpoint) for model in step.models.values())
    if not checkpoint and run.made_from != step.made_from(results):
        return total
    rows = {(row.sample_id, row.epoch): row for row in results.samples(run)}
    return len(step.missing(rows, results))


def _forecast(step: Evaluate, results: Results, measured: Measured, at_most: bool) -> Forecast:
    answers = unanswered(step, results)
    calls = step.calls(answers)
    of = lengths(step.task)
    tokens: dict[Role, tuple[float, float]] = {}
    known = []
    for role, model in step.models.items():
        key = (step.task.name, step.system.name, role, origin_of(model).base_label)
        if key in measured:
            known.append(role)
            into, out = measured[key]
            tokens[role] = (calls[role] * into, calls[role] * out)
        else:
            into, out = step.system.tokens(role, of)
            repeated = answers * step.repeats
            tokens[role] = (repeated * into, repeated * out)
    return Forecast(
        step,
        step.task.size,
        answers,
        calls,
        {role: into for role, (into, _) in tokens.items()},
        {role: out for role, (_, out) in tokens.items()},
        _basis(step, known),
        at_most,
        len(known) == len(tokens),
    )


def lengths(task: Task) -> Lengths:
    """Tokens of one sample: its prompt by its bytes, draft and answer at their longest."""
    answer = int(task.generation.get("max_gen_toks", MAX_TOKENS))
    return Lengths(task.prompt_bytes / BYTES_PER_TOKEN, task.meta.draft_tokens, answer)


def _basis(step: Evaluate, known: list[Role]) -> str:
    """What the tokens are known from."""
    if len(known) == len(step.models):
        return "tokens as in earlier runs"
    stated = isinstance(step.task, StatedTask)
    otherwise = (
        "sizes and lengths that the task's file states"
        if stated
        else "prompts at 4 bytes a token, answers at their longest"
    )
    if known:
        return f"tokens of {' and '.join(known)} as in earlier runs; else {otherwise}"
    return otherwise


def tokens_measured(results: Results) -> Measured:
    """Mean tokens in and out of a call, by task, system, role and model, in the runs that are stored."""
    means: dict[tuple[str, str, Role, str], tuple[float, float]] = {}
    for run in results.all_runs() if results.runs.is_dir() else ():
        for role, spec in run.models.items():
            names = (f"{role}_calls", f"{role}_input_tokens", f"{role}_output_tokens")
            calls, into, out = (
                sum(value or 0 for value in column.to_pylist())
                for column in results.columns(run, names).columns
            )
            if calls:
                means[run.task, run.system, role, spec.base_label] = (into / calls, out / calls)
    return means
