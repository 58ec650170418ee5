"""Opening models: behind an API, served by vLLM on this machine, or local."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

from inspect_ai._util.error import PrerequisiteError
from inspect_ai.model import GenerateConfig, Model, ModelCall, ModelOutput, get_model
from openai.types.chat import ChatCompletion
from rich.text import Text

from cowest_bench.config import Limits, ModelSpec
from cowest_bench.errors import ModelError, printable, redacted
from cowest_bench.models.identity import (
    adapter_folder,
    is_served,
    is_vllm,
    pinned,
    require_usable,
)
from cowest_bench.models.local import HFLMProvider

MOST_TOKENS = 10**9  # of one call; what an endpoint counts beyond that is not believed
MODEL_LENGTH = 200  # characters of the name that an endpoint gives itself
TEXT_LENGTH = 10**6  # characters of an answer that are kept

#: What a provider's ``generate`` may return, by Inspect's interface.
Generated = ModelOutput | tuple[ModelOutput | Exception, ModelCall]


def open_model(spec: ModelSpec, limits: Limits | None = None) -> Model:
    """The model as Inspect uses it. Local weights are loaded, unless they are in memory already.

    Raises:
        ModelError: If it cannot be opened or loaded.
    """
    if not spec.is_local:
        return _open_endpoint(spec, limits or Limits())
    args = spec.model_dump(include={"adapter", "revision", "dtype"}, exclude_none=True)
    model = get_model(f"hflm/{spec.path}", memoize=False, remote_code=spec.remote_code, **args)
    try:
        cast(HFLMProvider, model.api).load()  # before the first sample, not during it
    except Exception as error:  # each library has its own: safetensors, transformers, torch, peft
        raise ModelError(f"Model {spec.name} cannot be loaded: {error}") from error
    return model


def try_model(spec: ModelSpec, question: str, limits: Limits | None = None) -> ModelOutput:
    """Have a model answer one question, in at most 64 tokens.

    Raises:
        ModelError: If it cannot be opened, or does not answer.
    """
    require_usable(spec)
    model = open_model(spec, limits or Limits(attempt_timeout=60, timeout=60, retries=1))
    config = GenerateConfig(max_tokens=64, temperature=0.0)
    sampling = config.model_copy(update=spec.sampling)
    try:
        return asyncio.run(model.generate(question, config=sampling))
    except Exception as error:  # whatever the provider raises
        raise ModelError(f"Model {spec.name} does not answer: {redacted(str(error))}") from error


def _open_endpoint(spec: ModelSpec, limits: Limits) -> Model:
    """A model behind an API, or one that Inspect's vLLM provider serves on this machine."""
    config = GenerateConfig(
        attempt_timeout=limits.attempt_timeout,
        timeout=limits.timeout,
        max_retries=limits.retries,
        max_connections=limits.connections,
    )
    name, args = spec.name, dict[str, Any]()
    if name.startswith("openai-api/"):
        args["max_retries"] = 0  # the client's own, which would multiply ours
    if is_vllm(spec):
        # A running server knows adapters by names of its own.
        adapter = spec.adapter if is_served(spec) else adapter_folder(spec)
        name += f":{adapter}" if adapter else ""
        args = {} if is_served(spec) else _own_server(spec)
    try:
        return _checked(get_model(name, config=config, memoize=False, **args))
    except (ValueError, ImportError, PrerequisiteError) as error:
        said = " ".join(Text.from_markup(str(error)).plain.split())
        raise ModelError(
            f"Model {spec.name} cannot be opened: there is no such folder, and Inspect says: {said}"
        ) from error


def _own_server(spec: ModelSpec) -> dict[str, Any]:
    """Arguments of a vLLM server that only this machine can reach, with no secret on its command line."""
    revision = pinned(spec).revision
    args = {"host": "127.0.0.1", "api_key": "cowest-bench", "dtype": spec.dtype}
    return args | ({"revision": revision} if revision else {})


def _checked(model: Model) -> Model:
    """Check what an endpoint says before the engine believes it.

    An answer without text is an error, not an empty answer. What an endpoint says of itself is bounded, or
    taken for unsaid. Keys are removed everywhere, since some endpoints repeat what they were sent.
    """
    api = model.api
    generate = cast(Callable[..., Awaitable[Generated]], api.generate)

    async def checked(*args: object, **kwargs: object) -> Generated:
        try:
            result = await generate(*args, **kwargs)
        except Exception as error:
            _redact(error)
            raise
        output, call = result if isinstance(result, tuple) else (result, None)
        if isinstance(output, Exception):
            _redact(output)
            if call is not None:
                call.response = json.loads(redacted(json.dumps(call.response)))
            return result
        if not output.error:
            _require_text(output)
        for choice in output.choices:
            if isinstance(choice.message.content, str):
                choice.message.content = redacted(choice.message.content)[:TEXT_LENGTH]
        output.completion = output.message.text if output.choices else ""
        return result

    api.generate = checked  # type: ignore[method-assign]
    http = getattr(getattr(api, "client", None), "_client", None)  # of the openai package
    if http is not None:
        http.follow_redirects = False  # another host would get the key
    complete = getattr(
        api, "_generate_completion", None
    )  # of providers that speak OpenAI's protocol
    if complete is not None:

        async def believed(*args: object, **kwargs: object) -> ChatCompletion:
            return _believed(await complete(*args, **kwargs))

        api._generate_completion = believed  # type: ignore[attr-defined]
    return model


def _require_text(output: ModelOutput) -> None:
    """Refuse what would be scored as an empty answer.

    Raises:
        ModelError: If there is no choice, or one without text that a filter or a tool call explains.
    """
    if output.empty:
        raise ModelError("The endpoint's response has no choices.")
    if not output.completion and output.message.tool_calls:
        raise ModelError("The endpoint's response is a tool call without text.")
    if not output.completion and output.stop_reason == "content_filter":
        raise ModelError("The endpoint's response was filtered, and has no text.")


def _believed(completion: ChatCompletion) -> ChatCompletion:
    """A response in OpenAI's protocol without what cannot be true.

    Raises:
        ModelError: If its content is null.
    """
    if not isinstance(completion, ChatCompletion):
        return completion  # which Inspect refuses
    message = completion.choices[0].message if completion.choices else None
    if message is not None and message.content is None and not message.tool_calls:
        raise ModelError("The endpoint's response has no text (its content is null).")
    usage = completion.usage
    counts = (usage.prompt_tokens, usage.completion_tokens) if usage else ()
    if not all(isinstance(count, int) and 0 <= count <= MOST_TOKENS for count in counts):
        completion.usage = None
    elif usage:
        usage.total_tokens = sum(counts)
    completion.choices = completion.choices or []
    completion.model = printable(redacted(str(completion.model)))[:MODEL_LENGTH]
    return completion


def _redact(error: Exception) -> None:
    """In place, since the type of the error decides whether the call is tried again."""
    error.args = tuple(redacted(a) if isinstance(a, str) else a for a in error.args)
    for name, value in vars(error).items():
        if name in ("message", "body"):
            setattr(error, name, json.loads(redacted(json.dumps(value, default=str))))
