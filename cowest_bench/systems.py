"""The systems as Inspect solvers: ``y = strong(x, weak(x))``.

Two solvers are all four systems: ``solo`` is weak-only and strong-only, ``collaborate`` is the
collaboration, tuned or not, which differ only in the weak checkpoint. Each call leaves its tokens and
seconds in the sample's metadata, by role.
"""

from __future__ import annotations

from typing import Any

from inspect_ai.model import ChatMessage, ChatMessageUser, GenerateConfig, ModelOutput, get_model
from inspect_ai.solver import Generate, Solver, TaskState, solver

from cowest_bench.config import Role
from cowest_bench.prompts import DEFAULT_FORMAT, FORMATS, Prompts

DRAFT_TEMPERATURE = 0.7  # drafts are sampled, because k drafts of one question have to differ


@solver
def solo(role: Role) -> Solver:
    """One model answers alone, ``y = model(x)``, with the task's own prompt and settings."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        state.output = await _ask(state, role, state.messages, answer_config(state))
        return state

    return solve


@solver
def collaborate(
    format: str = DEFAULT_FORMAT, temperature: float = DRAFT_TEMPERATURE, seed: int = 0
) -> Solver:
    """The weak model drafts and the strong model refines, ``y = strong(x, weak(x))``.

    Args:
        format: How the weak model helps, a key of ``prompts.FORMATS``.
        temperature: Of the draft; the answer is generated with the task's own settings.
        seed: Of the draft; epoch e draws with ``seed + e``.
    """

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        prompts = Prompts(**state.metadata.get("prompts") or FORMATS[format].model_dump())
        question = state.messages[-1].text
        drafted = await _ask(
            state,
            "weak",
            _in_place_of_question(
                state, prompts.for_draft(state.metadata.get("draft_for", question))
            ),
            GenerateConfig(
                temperature=temperature,
                seed=seed + state.epoch,
                max_tokens=state.metadata.get("draft_tokens"),
            ),
        )
        state.metadata["draft"] = drafted.completion
        asked = prompts.for_refinement(question, drafted.completion)
        state.messages = _in_place_of_question(state, asked)
        state.output = await _ask(state, "strong", state.messages, answer_config(state))
        return state

    return solve


def answer_config(state: TaskState) -> GenerateConfig:
    """The task's own generation settings (in lm-eval's names) as Inspect's."""
    settings: dict[str, Any] = state.metadata.get("generation", {})
    sampled = bool(settings.get("do_sample", settings.get("temperature")))
    until = settings.get("until")
    return GenerateConfig(
        stop_seqs=[until] if isinstance(until, str) else until,
        max_tokens=settings.get("max_gen_toks"),
        temperature=settings.get("temperature", 1.0) if sampled else 0.0,
        top_p=settings.get("top_p") if sampled else None,
    )


async def _ask(
    state: TaskState, role: Role, messages: list[ChatMessage], config: GenerateConfig
) -> ModelOutput:
    """Ask the model in a role, and note what it cost."""
    output = await get_model(role=role, required=True).generate(messages, config=config)
    usage = output.usage
    state.metadata.setdefault("calls", {})[role] = {
        "input_tokens": usage.input_tokens if usage else None,
        "output_tokens": usage.output_tokens if usage else None,
        "seconds": output.time,
    }
    return output


def _in_place_of_question(state: TaskState, text: str) -> list[ChatMessage]:
    """The conversation with other words in its last turn, which is the question."""
    return [*state.messages[:-1], ChatMessageUser(content=text)]
