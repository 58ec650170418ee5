"""One answer to one sample: what a system may ask for, and what is recorded of it.

Everything goes through ``ask``, which holds calls to the budget, turns refusals into errors, and notes
tokens and seconds by role in the sample's metadata.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cowest_bench.config import Role
from cowest_bench.errors import ConfigError, ModelError, TaskError, suggestion
from cowest_bench.tasks.prompts import FORMATS, Prompts

if TYPE_CHECKING:
    from inspect_ai.model import ChatMessage, GenerateConfig, ModelOutput
    from inspect_ai.solver import TaskState

MAX_TOKENS = 256  # of an answer whose task does not say; lm-eval's default

#: Generation settings of lm-eval that every engine has, by their names in Inspect.
SETTINGS = {
    "top_p": "top_p",
    "top_k": "top_k",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
}

#: How the engine marks an endpoint's refusal (a filter, a context that is too long): its message stands
#: in place of an answer, and no tokens were spent.
REFUSED = ("content_filter", "model_length")


class Turn:
    """One answer to one sample.

    Attributes:
        messages: The conversation that the task itself puts to a model.
        question: The text of its last user turn.
        draft_question: The question that drafts are written for: another sample's where drafts are
            shuffled on purpose, as a control.
    """

    def __init__(
        self,
        state: TaskState,
        messages: list[ChatMessage],
        format: str,
        temperature: float,
        seed: int,
        repeat: int,
    ) -> None:
        self._state = state
        self.messages = messages
        self.question = question_of(messages)
        self.draft_question: str = state.metadata.get("draft_for", self.question)
        self._format = format
        self._temperature = temperature
        self._seed = seed
        self._repeat = repeat

    @property
    def prompts(self) -> Prompts:
        """The task's prompts of the interaction format; those of ``FORMATS`` for foreign samples.

        Raises:
            ConfigError: If there is no such format.
        """
        given = self._state.metadata.get("prompts", {})
        known = {key: Prompts(**value) for key, value in given.items()} or FORMATS
        if self._format not in known:
            allowed = suggestion(self._format, known)
            raise ConfigError(f"There is no interaction format {self._format}; {allowed}")
        return known[self._format]

    def asking(self, text: str) -> list[ChatMessage]:
        """The conversation with other words in the turn that is the question."""
        from inspect_ai.model import ChatMessageUser

        last = max(i for i, message in enumerate(self.messages) if message.role == "user")
        asked = ChatMessageUser(content=text, metadata=self.messages[last].metadata)
        return [*self.messages[:last], asked, *self.messages[last + 1 :]]

    async def draft(self, role: Role, messages: list[ChatMessage]) -> str:
        """A sampled draft; the first one of a sample is recorded.

        Epoch e draws with ``seed + e``. Raises what ``ask`` raises.
        """
        from inspect_ai.model import GenerateConfig

        config = GenerateConfig(
            temperature=self._temperature,
            seed=sampling_seed(self._state, self._seed, self._repeat),
            max_tokens=self._state.metadata.get("draft_tokens", 512),
        )
        output = await ask(self._state, role, messages, config)
        self._state.metadata.setdefault("draft", output.completion)
        return output.completion

    async def answer(self, role: Role, messages: list[ChatMessage]) -> str:
        """An answer with the task's own settings; the last one is what is scored.

        Raises what ``ask`` and ``answer_config`` raise.
        """
        config = answer_config(self._state, self._seed, self._repeat)
        self._state.messages = messages
        self._state.output = await ask(self._state, role, messages, config)
        return self._state.output.completion


def sampling_seed(state: TaskState, seed: int, repeat: int) -> int:
    """Another one for every epoch and repeat; epochs alone count up."""
    return seed + int(state.metadata.get("epoch", state.epoch)) + 1_000_003 * repeat


def answer_config(state: TaskState, seed: int = 0, repeat: int = 0) -> GenerateConfig:
    """The task's own generation settings (in lm-eval's names) as Inspect's.

    Raises:
        TaskError: If the task asks for a setting that not every engine has, such as beams.
    """
    from inspect_ai.model import GenerateConfig

    settings: dict[str, Any] = dict(state.metadata.get("generation", {}))
    until = settings.pop("until", None)
    max_tokens = settings.pop("max_gen_toks", MAX_TOKENS)
    temperature = settings.pop("temperature", None)
    sampled = bool(settings.pop("do_sample", temperature))
    known = {SETTINGS[key]: settings.pop(key) for key in list(settings) if key in SETTINGS}
    if settings:
        raise TaskError(
            f"The task's generation_kwargs {', '.join(sorted(settings))} have no counterpart in "
            f"every engine; allowed are until, max_gen_toks, do_sample, temperature, "
            f"{', '.join(SETTINGS)}."
        )
    return GenerateConfig(
        stop_seqs=([until] if isinstance(until, str) else until) or None,
        max_tokens=max_tokens,
        temperature=(1.0 if temperature is None else temperature) if sampled else 0.0,
        seed=sampling_seed(state, seed, repeat) if sampled else None,
        **(known if sampled else {}),
    )


async def ask(
    state: TaskState, role: Role, messages: list[ChatMessage], config: GenerateConfig
) -> ModelOutput:
    """Ask the model in a role within the budget, and note what it took.

    The model's own ``sampling`` overrides the task's settings.

    Raises:
        ModelError: If there is no answer after all retries, or the endpoint refused the request: the
            engine hands its message over as if it were an answer, which would be scored as wrong.
        BudgetError: If the call could pass the budget.
    """
    from inspect_ai.model import get_model
    from tenacity import RetryError

    from cowest_bench.models import budget

    config = config.model_copy(update=state.metadata.get("sampling", {}).get(role, {}))
    async with budget.reserved(role, messages, config) as spent:
        model = get_model(role=role, required=True)
        try:
            output = await model.generate(messages, config=config)
        except Exception as error:  # whatever the provider raises, in words that say whose it is
            last = error.last_attempt.exception() if isinstance(error, RetryError) else error
            reason = f"{type(last).__name__}: {last}"
            raise ModelError(f"The {role} model did not answer: {reason}") from error
        spent(output.usage)
    if output.error or (output.usage is None and output.stop_reason in REFUSED):
        raise ModelError(
            f"The {role} model refused the request: {output.error or output.completion}"
        )
    tokens_in, tokens_out = budget.tokens(output.usage)
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


def question_of(messages: list[ChatMessage]) -> str:
    """The last user turn; few-shot examples come before it, a prefix of the answer may follow."""
    return next(message.text for message in reversed(messages) if message.role == "user")
