"""Opening models: behind an API, served by vLLM on this machine, or local."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

from inspect_ai._util.error import PrerequisiteError
from inspect_ai.model import GenerateConfig, Model, ModelCall, ModelOutput, get_model
from rich.text import Text

from cowest_bench.config import Limits, ModelSpec
from cowest_bench.errors import ModelError, redacted
from cowest_bench.models.identity import (
    adapter_folder,
    is_served,
    is_vllm,
    pinned,
    require_usable,
)
from cowest_bench.models.local import HFLMProvider

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
        return _without_keys(get_model(name, config=config, memoize=False, **args))
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


def _without_keys(model: Model) -> Model:
    """Remove keys from an endpoint's errors: some endpoints repeat what they were sent.

    This happens before the engine sees the error, so the key is not in its logs either.
    """
    generate = cast(Callable[..., Awaitable[Generated]], model.api.generate)

    async def redacting(*args: object, **kwargs: object) -> Generated:
        try:
            result = await generate(*args, **kwargs)
        except Exception as error:
            _redact(error)
            raise
        output, call = result if isinstance(result, tuple) else (result, None)
        if isinstance(output, Exception):
            _redact(output)
        if isinstance(output, Exception) and call is not None:
            call.response = json.loads(redacted(json.dumps(call.response)))
        return result

    model.api.generate = redacting  # type: ignore[method-assign]
    return model


def _redact(error: Exception) -> None:
    """In place, since the type of the error decides whether the call is tried again."""
    error.args = tuple(redacted(a) if isinstance(a, str) else a for a in error.args)
    for name, value in vars(error).items():
        if name in ("message", "body"):
            setattr(error, name, json.loads(redacted(json.dumps(value, default=str))))
