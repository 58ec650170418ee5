"""The door of lm-eval: a pairing as a model of lm-eval, for any of its tasks and by its own command.

    cowest lm-eval run --model cowest --model_args weak=DIR,strong=openai-api/x/y --tasks gsm8k \
        --apply_chat_template

(The command is lm-eval's own; 0.4.13 finds other packages' models only if they are imported first.)

With ``--apply_chat_template`` lm-eval hands the conversation over as messages, without it as text, which
local models get as it stands and endpoints as one user turn. The answers are made by the solvers of
``evaluate``, so texts and scores are those of ``cowest run``. What differs is what lm-eval has no
place for: a sample that fails, after the same retries, ends the whole command.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import lm_eval.models  # noqa: F401  (first: a model registered before it hides every built-in one)
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from cowest_bench.config import DEFAULT_FORMAT, DRAFT_TEMPERATURE, Asking, Limits, ModelSpec, Role
from cowest_bench.errors import ConfigError, ModelError, RunError, TaskError, redacted, suggestion
from cowest_bench.lab.engine import Engine
from cowest_bench.lab.samples import conversation, settings
from cowest_bench.models import require_usable
from cowest_bench.systems import find_system
from cowest_bench.systems.turn import Turn
from cowest_bench.tasks import Message, Metadata, chat_as_json, messages_of, read_task_file

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance


@register_model("cowest")
class CowestLM(LM):
    """A system as a model of lm-eval.

    ``--model_args`` takes the arguments by name, ``key=value,...`` or a JSON object, in which a model
    may be an object too (``{"name": ..., "adapter": ..., "sampling": ...}``, see ``ModelSpec``).

    lm-eval adds ``--model_args`` to the metadata of every task: one that reads a ``seed`` of its own
    there (the world to draw, say) gets this one, unless ``--metadata '{"seed": 3}'`` says otherwise.

    Args:
        weak: The model in the role ``weak``.
        strong: The model in the role ``strong``.
        system: ``weak``, ``strong``, ``collab`` or ``collab-tuned``.
        format: How the weak model helps, a key of ``prompts.FORMATS``.
        temperature: Of the drafts.
        seed: Of the drafts' sampling.
        weak_adapter: LoRA adapter on top of a local weak model.
        dtype: Of local models.
        include_path: A folder of task files, if lm-eval's option of that name is used: what a task
            says for this benchmark (prompts, the length of a draft) is not handed to a model, and is
            read from the task's file by its name.
        attempt_timeout: Seconds for one try of a call to an endpoint.
        timeout: Seconds for all of them.
        retries: How often a call that failed is tried again.
        batch_size: Given by lm-eval; local models choose their own.
        max_batch_size: Likewise.
        device: Likewise.
        unknown: Refused.

    Raises:
        ConfigError: If an argument is unknown or missing.
        ModelError: If a model cannot be loaded.
    """

    def __init__(
        self,
        weak: str | dict[str, Any] | None = None,
        strong: str | dict[str, Any] | None = None,
        system: str = "collab",
        format: str = DEFAULT_FORMAT,
        temperature: float = DRAFT_TEMPERATURE,
        seed: int = 0,
        weak_adapter: str | None = None,
        dtype: str = "auto",
        include_path: str | None = None,
        attempt_timeout: int = Limits().attempt_timeout,
        timeout: int = Limits().timeout,
        retries: int = Limits().retries,
        batch_size: object = None,
        max_batch_size: object = None,
        device: object = None,
        **unknown: object,
    ) -> None:
        super().__init__()
        for name in unknown:
            raise ConfigError(f"There is no model argument {name}; {suggestion(name, _ARGUMENTS)}")
        given = {"weak": _spec(weak, dtype, weak_adapter), "strong": _spec(strong, dtype, None)}
        self._specs = _specs(system, given)
        self._limits = Limits(attempt_timeout=attempt_timeout, timeout=timeout, retries=retries)
        self._system = find_system(system)
        self._asking = Asking(format=format, temperature=float(temperature), seed=int(seed))
        self._include_path = include_path
        self._metadata: dict[str | None, Metadata] = {}

    @property
    def tokenizer_name(self) -> str:
        """What tells cached requests of this model from those of others."""
        return "cowest"

    def apply_chat_template(
        self, chat_history: list[Message], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as text that ``generate_until`` reads back."""
        return chat_as_json(chat_history, add_generation_prompt)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer all requests; a request that is there several times is a task's ``repeats``.

        Raises:
            RunError: If a sample could not be answered: lm-eval has no rows for errors.
        """
        places: dict[int, list[int]] = defaultdict(list)
        for place, request in enumerate(requests):
            places[id(request)].append(place)
        answers = [""] * len(requests)
        engine = Engine(self._specs, self._limits)

        async def work(where: list[int]) -> str | None:
            request = requests[where[0]]
            messages, told, plain = self._told(request, len(where))
            for repeat, place in enumerate(where):
                asked = conversation(messages, plain=plain)
                turn = Turn(asked, told, self._asking, engine.ask, repeat=repeat)
                try:
                    await self._system.answer(turn)
                except ModelError as error:
                    raise RunError(
                        f"Sample {request.doc_id} of task {request.task_name} was not answered: "
                        f"{redacted(str(error))}"
                    ) from error
                answers[place] = turn.answered.text if turn.answered else ""
            return None

        engine.run(places.values(), work)
        if engine.stopped is not None:
            raise engine.stopped
        return answers

    def _told(self, request: Instance, repeats: int) -> tuple[list[Message], dict[str, Any], bool]:
        """A request's conversation, what its task says to the system, and whether it is plain text."""
        context, generation = request.args
        messages, plain = messages_of(context)
        name = request.task_name
        if name not in self._metadata:
            self._metadata[name], _ = read_task_file(str(name), self._include_path)
        return messages, settings(self._metadata[name], generation, repeats), plain

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Refused."""
        raise TaskError(
            f"Task {requests[0].task_name} compares log-probabilities of given answers; a "
            "collaboration answers in text, so choose a generate_until task."
        )

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Refused, as ``loglikelihood`` is."""
        self.loglikelihood(requests)
        return []


_ARGUMENTS = (
    *("weak", "strong", "system", "format", "temperature", "seed"),
    *("weak_adapter", "dtype", "include_path", "attempt_timeout", "timeout", "retries"),
)


def _specs(system: str, given: Mapping[str, ModelSpec | None]) -> dict[Role, ModelSpec]:
    """The model in every role that a system asks."""
    specs = {}
    for role in find_system(system).roles:
        spec = given.get(role)
        if spec is None:
            raise ConfigError(f"System {system} needs a {role} model; give {role}=MODEL.")
        require_usable(spec)
        specs[role] = spec
    return specs


def _spec(model: str | dict[str, Any] | None, dtype: str, adapter: str | None) -> ModelSpec | None:
    if model is None:
        return None
    if isinstance(model, dict):
        return ModelSpec.model_validate(model)
    return ModelSpec(name=str(model), dtype=dtype, adapter=adapter)


def main(arguments: list[str]) -> None:
    """Run lm-eval's command with these arguments; it reads them where its own would stand."""
    from lm_eval.__main__ import cli_evaluate

    sys.argv = ["lm-eval", *arguments]
    cli_evaluate()
