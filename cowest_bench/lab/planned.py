"""The lab that only notes steps: the dry run, and the work list of a sweep.

What a plan takes is counted on the same steps that ``Local`` makes, less what is stored already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from cowest_bench.tasks import BYTES_PER_TOKEN, StatedTask

S = TypeVar("S", bound=Step)
Measured = Mapping[tuple[str, str, Role, str], tuple[float, float]]


class Planned(Lab):
    """Notes every step once, in the order in which it can be made.

    If ``offline``, models on a hub that cannot be asked now are planned all the same.
    """

    def __init__(self, *, offline: bool = False) -> None:
        self.steps: dict[str, Step] = {}
        self._offline = offline

    def do(self, step: S) -> S:
        """Check that a step can be made, and note it; raises a ``CowestError`` if it would fail."""
        step.check()  # first: a model that is not there has no id
        with unresolved_models(self._offline):
            self.steps.setdefault(step.id, step)
        return step


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is still to be asked in one evaluation of a plan: calls and tokens by role."""

    step: Evaluate
    answers: int  # that are missing, of all its epochs
    calls: dict[Role, int]
    input_tokens: dict[Role, float]
    output_tokens: dict[Role, float]  # the most they can be, where nothing was measured
    basis: str  # what the tokens are known from
    at_most: bool  # early stopping may make it less
    measured: bool  # the tokens of all roles are those of earlier runs

    @property
    def samples(self) -> int:
        """How many there are in the split."""
        return self.step.task.size

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
    asked: dict[str, tuple[Evaluate, bool]] = {}  # and whether early stopping may leave it out
    with unresolved_models():
        for step in steps:
            if isinstance(step, Evaluate):
                asked.setdefault(step.id, (step, False))
            elif isinstance(step, Align) and not step.is_made(results):
                certain = step.settings.patience  # training never ends before so many are scored
                for i, candidate in enumerate(step.candidates()):
                    asked.setdefault(candidate.id, (candidate, i > certain))
        return [_forecast(step, results, known, at_most) for step, at_most in asked.values()]


def _forecast(step: Evaluate, results: Results, measured: Measured, at_most: bool) -> Forecast:
    task, answers = step.task, _unanswered(step, results)
    calls = step.calls(answers)
    longest = int(task.generation.get("max_gen_toks", MAX_TOKENS))
    lengths = Lengths(task.prompt_bytes / BYTES_PER_TOKEN, task.meta.draft_tokens, longest)
    tokens: dict[Role, tuple[float, float]] = {}
    known: list[str] = []
    for role, model in step.models.items():
        key = (task.name, step.system.name, role, origin_of(model).base_label)
        if key in measured:
            known.append(role)
        into, out = measured.get(key) or step.system.tokens(role, lengths)
        times = calls[role] if key in measured else answers * step.repeats
        tokens[role] = (times * into, times * out)
    basis = (
        "sizes and lengths that the task's file states"
        if isinstance(task, StatedTask)
        else "prompts at 4 bytes a token, answers at their longest"
    )
    if len(known) == len(tokens):
        basis = "tokens as in earlier runs"
    elif known:
        basis = f"tokens of {' and '.join(known)} as in earlier runs; else {basis}"
    return Forecast(
        step,
        answers,
        calls,
        {role: into for role, (into, _) in tokens.items()},
        {role: out for role, (_, out) in tokens.items()},
        basis,
        at_most,
        measured=len(known) == len(tokens),
    )


def _unanswered(step: Evaluate, results: Results) -> int:
    """How many answers an evaluation still lacks."""
    run = step.run(results)
    if run is not None and not isinstance(step.task, StatedTask):
        checkpoint = any(isinstance(model, Checkpoint) for model in step.models.values())
        if checkpoint or run.made_from == step.made_from(results):
            rows = {(row.sample_id, row.epoch): row for row in results.samples(run)}
            return len(step.missing(rows, results))
    return step.task.size * step.epochs


def tokens_measured(results: Results) -> Measured:
    """Mean tokens in and out of a call, by task, system, role and model, in the runs that are stored."""
    means: dict[tuple[str, str, Role, str], tuple[float, float]] = {}
    for run in results.all_runs():
        for role, spec in run.models.items():
            names = [f"{role}_{each}" for each in ("calls", "input_tokens", "output_tokens")]
            columns = results.columns(run, names).columns
            calls, into, out = (sum(filter(None, column.to_pylist())) for column in columns)
            if calls:
                means[run.task, run.system, role, spec.base_label] = (into / calls, out / calls)
    return means
