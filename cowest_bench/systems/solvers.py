"""Systems as Inspect solvers, for ``inspect eval``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspect_ai.model import ModelOutput, get_model
from inspect_ai.solver import Generate, Solver, TaskState, solver

from cowest_bench.config import DEFAULT_FORMAT, DRAFT_TEMPERATURE, Asking, Role
from cowest_bench.systems import COLLAB, System, find_system
from cowest_bench.systems.turn import Call, Turn, call

if TYPE_CHECKING:
    from inspect_ai.model import ChatMessage, GenerateConfig


@solver
def answer_with(
    system: str,
    format: str = DEFAULT_FORMAT,
    temperature: float = DRAFT_TEMPERATURE,
    seed: int = 0,
) -> Solver:
    """Answer every sample with a system, as often as the task repeats it.

    Args:
        system: Its name.
        format: The interaction format, a key of ``prompts.FORMATS``.
        temperature: Of drafts; answers are generated with the task's own settings.
        seed: Of sampling; repeat r of epoch e draws with ``seed + e`` and r.
    """
    return _solving(find_system(system), Asking(format=format, temperature=temperature, seed=seed))


@solver
def solo(role: Role, seed: int = 0) -> Solver:
    """One model answers alone; arguments as for ``answer_with``."""
    return _solving(find_system(role), Asking(seed=seed))


@solver
def collaborate(
    format: str = DEFAULT_FORMAT, temperature: float = DRAFT_TEMPERATURE, seed: int = 0
) -> Solver:
    """The weak model drafts and the strong model refines; arguments as for ``answer_with``."""
    return _solving(COLLAB, Asking(format=format, temperature=temperature, seed=seed))


def _solving(system: System, asking: Asking) -> Solver:
    async def ask(role: Role, messages: list[ChatMessage], config: GenerateConfig) -> Call:
        return await call(get_model(role=role, required=True), role, messages, config)

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        messages = list(state.messages)
        for repeat in range(int(state.metadata.get("repeats", 1))):
            turn = Turn(messages, state.metadata, asking, ask, epoch=state.epoch, repeat=repeat)
            await system.answer(turn)
            if turn.answered is None:
                continue
            state.messages = turn.asked
            state.output = ModelOutput.from_content(turn.answered.model, turn.answered.text)
            state.metadata.setdefault("completions", []).append(turn.answered.text)
            if turn.drafted is not None:
                state.metadata.setdefault("draft", turn.drafted)
        return state

    return solve
