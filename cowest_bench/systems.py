"""The systems as Inspect solvers: ``y = strong(x, weak(x))``.

Two solvers are all four systems: ``solo`` is weak-only and strong-only, ``collaborate`` is the
collaboration, tuned or not, which differ only in the weak checkpoint. Each call adds its tokens and
seconds to the sample's metadata, by role.
"""

from __future__ import annotations

from typing import Any

from inspect_ai.model import ChatMessage, ChatMessageUser, GenerateConfig, ModelOutput, get_model
from inspect_ai.solver import Generate, Solver, TaskState, solver
from tenacity import RetryError

from cowest_bench import spending
from cowest_bench.config import Role
from cowest_bench.errors import ConfigError, ModelError, TaskError, suggestion
from cowest_bench.prompts import DEFAULT_FORMAT, FORMATS, Prompts

DRAFT_TEMPERATURE = 0.7  # drafts are sampled, because k drafts of one question have to differ
MAX_TOKENS = 256  # of an answer whose task does not say; lm-eval's default


@solver
def solo(role: Role, seed: int = 0) -> Solver:
    """One model answers alone, ``y = model(x)``, with the task's own prompt and settings.

    Args:
        role: Which model.
        seed: Of a task that samples its answers; repeat r of epoch e draws with ``seed + e``, r.
    """

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        for repeat in range(_repeats(state)):
            config = answer_config(state, seed, repeat)
            _answered(state, await ask(state, role, state.messages, config))
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
        prompts = _prompts(state, format)
        asked, question = list(state.messages), question_of(state.messages)
        for repeat in range(_repeats(state)):
            drafted = await ask(
                state,
                "weak",
                with_question(asked, prompts.for_draft(state.metadata.get("draft_for", question))),
                GenerateConfig(
                    temperature=temperature,
                    seed=_seed(state, seed, repeat),
                    max_tokens=state.metadata.get("draft_tokens", 512),
                ),
            )
            state.metadata.setdefault("draft", drafted.completion)
            refinement = prompts.for_refinement(question, drafted.completion)
            state.messages = with_question(asked, refinement)
            config = answer_config(state, seed, repeat)
            _answered(state, await ask(state, "strong", state.messages, config))
        return state

    return solve


def _prompts(state: TaskState, format: str) -> Prompts:
    """The task's own prompts for an interaction format; those of ``FORMATS`` for foreign samples."""
    own = {key: Prompts(**value) for key, value in state.metadata.get("prompts", {}).items()}
    known = own or FORMATS
    if format not in known:
        raise ConfigError(f"There is no interaction format {format}; {suggestion(format, known)}")
    return known[format]


def _repeats(state: TaskState) -> int:
    """How often the task wants each question answered before it is scored."""
    return int(state.metadata.get("repeats", 1))


def _seed(state: TaskState, seed: int, repeat: int) -> int:
    """Another one for every epoch and repeat; epochs alone count up, as many as there are."""
    return seed + int(state.metadata.get("epoch", state.epoch)) + 1_000_003 * repeat


def _answered(state: TaskState, output: ModelOutput) -> None:
    state.output = output
    state.metadata.setdefault("completions", []).append(output.completion)


#: Generation settings of lm-eval that every engine has, by their names in Inspect.
_SETTINGS = {
    "top_p": "top_p",
    "top_k": "top_k",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
}


def answer_config(state: TaskState, seed: int = 0, repeat: int = 0) -> GenerateConfig:
    """The task's own generation settings (in lm-eval's names) as Inspect's.

    Raises:
        TaskError: If the task asks for a setting that not every engine has, such as beams.
    """
    settings: dict[str, Any] = dict(state.metadata.get("generation", {}))
    until = settings.pop("until", None)
    max_tokens = settings.pop("max_gen_toks", MAX_TOKENS)
    temperature = settings.pop("temperature", None)
    sampled = bool(settings.pop("do_sample", temperature))
    known = {_SETTINGS[key]: settings.pop(key) for key in list(settings) if key in _SETTINGS}
    if settings:
        raise TaskError(
            f"The task's generation_kwargs {', '.join(sorted(settings))} have no counterpart in "
            f"every engine; allowed are until, max_gen_toks, do_sample, temperature, "
            f"{', '.join(_SETTINGS)}."
        )
    return GenerateConfig(
        stop_seqs=([until] if isinstance(until, str) else until) or None,
        max_tokens=max_tokens,
        temperature=(1.0 if temperature is None else temperature) if sampled else 0.0,
        seed=_seed(state, seed, repeat) if sampled else None,
        **(known if sampled else {}),
    )


async def ask(
    state: TaskState, role: Role, messages: list[ChatMessage], config: GenerateConfig
) -> ModelOutput:
    """Ask the model in a role within the budget, and note what it took.

    What the model's ``sampling`` says has the last word over the task's settings.

    Raises:
        ModelError: If there is no answer, after all retries; or if the endpoint refused the request:
            the engine hands its message over as if it were an answer, to be scored as a wrong one.
        BudgetError: If the call could pass the budget.
    """
    config = config.model_copy(update=state.metadata.get("sampling", {}).get(role, {}))
    async with spending.reserved(role, messages, config) as spent:
        model = get_model(role=role, required=True)
        try:
            output = await model.generate(messages, config=config)
        except Exception as error:  # whatever the provider raises, in words that say whose it is
            last = error.last_attempt.exception() if isinstance(error, RetryError) else error
            reason = f"{type(last).__name__}: {last}"
            raise ModelError(f"The {role} model did not answer: {reason}") from error
        spent(output.usage)
    if output.error or (output.usage is None and output.stop_reason in _REFUSED):
        raise ModelError(
            f"The {role} model refused the request: {output.error or output.completion}"
        )
    tokens_in, tokens_out = spending.tokens(output.usage)
    calls = state.metadata.setdefault("calls", {}).setdefault(role, [])
    calls.append(
        {
            "input": tokens_in,
            "output": tokens_out,
            "seconds": output.time,
            "model": output.model,
        }
    )
    return output


#: How the engine marks an endpoint's refusal (a filter, a context that is too long), with its message
#: in place of an answer and no tokens spent.
_REFUSED = ("content_filter", "model_length")


def question_of(messages: list[ChatMessage]) -> str:
    """The last user turn; few-shot examples come before it, a prefix of the answer may follow."""
    return next(message.text for message in reversed(messages) if message.role == "user")


def with_question(messages: list[ChatMessage], text: str) -> list[ChatMessage]:
    """The conversation with other words in the turn that is the question."""
    last = max(i for i, message in enumerate(messages) if message.role == "user")
    asked = ChatMessageUser(content=text, metadata=messages[last].metadata)
    return [*messages[:last], asked, *messages[last + 1 :]]
