"""Systems as Inspect solvers, for our own engine run and for ``inspect eval``."""

from __future__ import annotations

from inspect_ai.solver import Generate, Solver, TaskState, solver

from cowest_bench.config import DEFAULT_FORMAT, DRAFT_TEMPERATURE, Role
from cowest_bench.systems import COLLAB, System, find_system
from cowest_bench.systems.turn import Turn


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
    return _solving(find_system(system), format, temperature, seed)


@solver
def solo(role: Role, seed: int = 0) -> Solver:
    """One model answers alone; arguments as for ``answer_with``."""
    return _solving(find_system(role), DEFAULT_FORMAT, DRAFT_TEMPERATURE, seed)


@solver
def collaborate(
    format: str = DEFAULT_FORMAT, temperature: float = DRAFT_TEMPERATURE, seed: int = 0
) -> Solver:
    """The weak model drafts and the strong model refines; arguments as for ``answer_with``."""
    return _solving(COLLAB, format, temperature, seed)


def _solving(system: System, format: str, temperature: float, seed: int) -> Solver:
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        asked = list(state.messages)
        for repeat in range(int(state.metadata.get("repeats", 1))):
            await system.answer(Turn(state, asked, format, temperature, seed, repeat))
            state.metadata.setdefault("completions", []).append(state.output.completion)
        return state

    return solve
