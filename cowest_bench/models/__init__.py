"""Models: what identifies one, and local models as an Inspect provider.

Local weights generate through lm-eval's own ``HFLM`` class (provider ``hflm``), the only path on which
every text equals that of the ``lm_eval`` command: Inspect's ``hf`` provider adds the start token twice,
samples by default and does not cut stop strings. Everything behind an API is Inspect's own provider.

Sampling is seeded per call: a draft is a function of the weights, the prompt and the seed, whatever
else is in its batch.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from inspect_ai._util.error import PrerequisiteError
from inspect_ai.model import (
    ChatMessage,
    GenerateConfig,
    Model,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    get_model,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo
from rich.text import Text

from cowest_bench.config import Limits, ModelSpec
from cowest_bench.errors import ModelError, redacted

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM

    from cowest_bench.tasks import Message

Request = TypeVar("Request")
Response = TypeVar("Response")

Generated = tuple[str, int, int]  # text, input tokens, output tokens

PLAIN = "plain"  # marks, in a message's metadata, text that no chat template is put around
BATCH_SIZE = 64  # sequences generated together
MODELS_LOADED = 4  # local models that stay in memory
GATHER_SECONDS = 0.05  # how long a batch that is not full waits for the next request


# --- identity -------------------------------------------------------------------------------------


def check(spec: ModelSpec) -> None:
    """Refuse a model that cannot be there, before anything is started.

    Raises:
        ModelError: If a local folder is missing or holds no safetensors weights, or something is
            asked of a model that cannot have it.
    """
    if spec.adapter and not (spec.is_local or spec.name.startswith("vllm/")):
        raise ModelError(
            f"{spec.name} is behind an endpoint, where no adapter can be added; serve it with the "
            "adapter, or use the base as a local model or as vllm/BASE."
        )
    if not spec.is_local:
        return
    for folder, kind in ((spec.path, "model"), (spec.adapter, "adapter")):
        if folder is None or (spec.name.startswith("hf/") and not folder.startswith((".", "/"))):
            continue
        if not Path(folder).is_dir():
            raise ModelError(
                f"There is no {kind} folder {folder}; give the path of a folder with safetensors "
                "weights, hf/ORG/NAME for the hub, or a model behind an API as Inspect names it."
            )
        if not list(Path(folder).glob("*.safetensors")):
            raise ModelError(
                f"The {kind} folder {folder} holds no *.safetensors file; other weight formats can "
                "execute code when loaded and are refused."
            )


def identity(spec: ModelSpec) -> dict[str, Any]:
    """What decides a model's answers: hashes of weights that lie here, or a name and a revision.

    Paths do not count: a folder that was moved is the same model. What a name at an endpoint stands
    for is the endpoint's affair; the run records what it reported (``Run.reported``).
    """
    sampling = {"sampling": spec.sampling} if spec.sampling else {}
    if spec.is_local:
        engine = {name: version(name) for name in ("torch", "transformers", "peft")}
        return {
            "weights": _weights(spec.path, spec.revision),
            "adapter": _weights(spec.adapter, None) if spec.adapter else None,
            "dtype": spec.dtype,
            **engine,
            **sampling,
        }
    served = spec.name.removeprefix("vllm/")
    named = {"name": f"vllm:{_weights(served, None)}" if Path(served).is_dir() else spec.name}
    adapter = {"adapter": _weights(spec.adapter, None)} if spec.adapter else {}
    return {**named, "revision": spec.revision, **adapter, **sampling}


def _weights(path: str, revision: str | None) -> str:
    folder = Path(path)
    if not folder.is_dir():
        return f"hub:{path}@{revision or 'main'}"
    files = sorted(
        file for file in folder.iterdir() if file.suffix in (".safetensors", ".json", ".jinja")
    )
    relevant = [file for file in files if file.name not in _NOT_WEIGHTS]
    return _folder_hash(tuple((str(f), f.stat().st_mtime_ns, f.stat().st_size) for f in relevant))


#: JSON files of a model folder that do not decide its answers (the adapter's base is hashed itself).
_NOT_WEIGHTS = ("training.json", "card.json", "adapter_config.json")


@lru_cache(maxsize=256)
def _folder_hash(files: tuple[tuple[str, int, int], ...]) -> str:
    """Hash of file names and contents; the times and sizes only tell when to hash again."""
    digest = hashlib.sha256()
    for name, _, _ in files:
        with Path(name).open("rb") as file:
            digest.update(Path(name).name.encode())
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


# --- opening a model ------------------------------------------------------------------------------


def open_model(spec: ModelSpec, limits: Limits | None = None) -> Model:
    """The model as Inspect uses it; weights of the last few local models stay loaded.

    Raises:
        ModelError: If it cannot be opened or loaded.
    """
    if not spec.is_local:
        return _open_endpoint(spec, limits or Limits())
    args = spec.model_dump(include={"adapter", "revision", "dtype"}, exclude_none=True)
    model = get_model(f"hflm/{spec.path}", memoize=False, remote_code=spec.remote_code, **args)
    try:
        _ = model.api.lm  # type: ignore[attr-defined]  # before the first sample, not in it
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"Model {spec.name} cannot be loaded: {error}") from error
    return model


def try_model(spec: ModelSpec, question: str, limits: Limits | None = None) -> ModelOutput:
    """Have a model answer one question, in at most 64 tokens.

    Raises:
        ModelError: If it cannot be opened, or does not answer.
    """
    check(spec)
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
    if name.startswith("vllm/"):
        name += f":{spec.adapter}" if spec.adapter else ""
        if "VLLM_BASE_URL" not in os.environ:
            # A server of our own: reachable from here only, with no secret on its command line.
            args |= {"host": "127.0.0.1", "api_key": "cowest-bench", "dtype": spec.dtype}
            args |= {"revision": spec.revision} if spec.revision else {}
    try:
        return _without_keys(get_model(name, config=config, memoize=False, **args))
    except (ValueError, ImportError, PrerequisiteError) as error:
        said = " ".join(Text.from_markup(str(error)).plain.split())
        raise ModelError(
            f"Model {spec.name} cannot be opened: it is no folder here, and Inspect says: {said}"
        ) from error


def _without_keys(model: Model) -> Model:
    """Take keys out of what an endpoint says in an error: some repeat what they were sent.

    This happens before the engine sees the error, so that it is in no log either.
    """
    generate = model.api.generate

    async def redacting(*args: Any, **kwargs: Any) -> Any:
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


Weights = tuple[str, str | None, str, str, str, bool]

_loaded: dict[Weights, HFLM] = {}  # the one that was used last is the last


def forget_all_but(specs: Iterable[ModelSpec]) -> None:
    """Leave the memory to these models, with or without an adapter, and to those that come."""
    kept = {spec.path for spec in specs}
    others = [key for key in _loaded if key[0] not in kept]
    for key in others:
        del _loaded[key]
    if others:
        gc.collect()


def _load(*key: *Weights) -> HFLM:
    """Loaded weights, of the last ``MODELS_LOADED`` models that were used."""
    lm = _loaded.pop(key, None)
    if lm is None:
        for oldest in [*_loaded][: 1 - MODELS_LOADED]:
            del _loaded[oldest]
        lm = _read(*key)
    _loaded[key] = lm
    return lm


def _read(
    path: str, adapter: str | None, revision: str, dtype: str, weights: str, remote_code: bool
) -> HFLM:
    """Load weights; ``weights`` (their hash) makes changed files a different model."""
    from cowest_bench.models.hflm import SeededHFLM, default_device, quiet

    with quiet():
        return SeededHFLM(
            device=default_device(),
            pretrained=path,
            peft=adapter,
            revision=revision,
            dtype=dtype,
            batch_size=BATCH_SIZE,
            trust_remote_code=remote_code,
            use_safetensors=True,
        )


class Batcher(Generic[Request, Response]):
    """Collects single asynchronous requests and answers them in batches, in a thread.

    A batch is taken when it is full, or when no further request has come for ``GATHER_SECONDS``.
    Requests are taken in the order in which they came, so that the same run makes the same batches.
    """

    def __init__(self, answer: Callable[[list[Request]], Sequence[Response]], size: int) -> None:
        self._answer = answer
        self._size = size
        self._waiting: list[tuple[Request, asyncio.Future[Response]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def __call__(self, request: Request) -> Response:
        """Answer one request; raises what answering its batch raised."""
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            seen = 0
            while seen < len(self._waiting) < self._size:
                seen = len(self._waiting)
                await asyncio.sleep(GATHER_SECONDS)
            batch = self._waiting[: self._size]
            del self._waiting[: self._size]
            try:
                answers = await asyncio.to_thread(self._answer, [request for request, _ in batch])
            except Exception as error:  # noqa: BLE001 (whoever asked gets it)
                for _, future in batch:
                    future.set_exception(error)
            else:
                for (_, future), answer in zip(batch, answers, strict=True):
                    if not future.cancelled():
                        future.set_result(answer)


class HFLMProvider(ModelAPI):
    """Inspect provider for local weights, a folder or a hub name, with an optional LoRA adapter."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 (the signature Inspect calls)
        adapter: str | None = None,
        revision: str | None = None,
        dtype: str = "auto",
        remote_code: bool = False,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        self.spec = ModelSpec(
            name=f"hf/{model_name}",
            adapter=adapter,
            revision=revision,
            dtype=dtype,
            remote_code=remote_code,
        )
        self._generate = Batcher(self._generate_batch, BATCH_SIZE)
        self._logprob = Batcher(self._logprob_batch, BATCH_SIZE)

    def max_connections(self) -> int:
        """Enough requests at once to fill batches while others are being scored."""
        return 4 * BATCH_SIZE

    @cached_property
    def lm(self) -> HFLM:
        """lm-eval's model, loaded when first needed."""
        spec = self.spec
        hashes = identity(spec)
        return _load(
            spec.path,
            spec.adapter,
            spec.revision or "main",
            spec.dtype,
            f"{hashes['weights']} {hashes['adapter']}",
            spec.remote_code,
        )

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Answer one chat, together with others that are waiting."""
        messages: list[Message] = [{"role": m.role, "content": m.text} for m in input]
        prompt = self.render(messages, plain=is_plain(input))
        text, tokens_in, tokens_out = await self._generate((prompt, _generation(config)))
        output = ModelOutput.from_content(self.model_name, text)
        output.usage = ModelUsage(
            input_tokens=tokens_in, output_tokens=tokens_out, total_tokens=tokens_in + tokens_out
        )
        return output

    async def logprob(
        self, messages: list[Message], start: str, answer: str, *, plain: bool = False
    ) -> float:
        """Log-probability (nats) that an assistant turn beginning with ``start`` goes on as ``answer``."""
        return await self._logprob((self.render(messages, plain=plain) + start, answer))

    def render(self, messages: list[Message], *, plain: bool = False) -> str:
        """The prompt as lm-eval writes it: by the chat template, or plain.

        It is plain if the model has no template, or if the run is one without (as ``lm_eval`` is by
        default). An assistant's turn at the end is the beginning of the answer (``gen_prefix``).
        """
        if plain or self.lm.tokenizer.chat_template is None:
            return "".join(message["content"] for message in messages)
        begun = messages[-1]["role"] == "assistant"
        return str(self.lm.apply_chat_template(messages, add_generation_prompt=not begun))

    def _generate_batch(self, requests: list[tuple[str, dict[str, Any]]]) -> list[Generated]:
        from lm_eval.api.instance import Instance

        instances = [Instance("generate_until", {}, request, 0) for request in requests]
        texts = self.lm.generate_until(instances, disable_tqdm=True)
        return [
            (text, len(self.lm.tok_encode(prompt)), len(self.lm.tok_encode(text)))
            for (prompt, _), text in zip(requests, texts, strict=True)
        ]

    def _logprob_batch(self, requests: list[tuple[str, str]]) -> list[float]:
        from lm_eval.api.instance import Instance

        instances = [Instance("loglikelihood", {}, request, 0) for request in requests]
        return [value for value, _ in self.lm.loglikelihood(instances, disable_tqdm=True)]


def is_plain(messages: Sequence[ChatMessage]) -> bool:
    """Whether the text is meant for the model as it stands (endpoints always have a template)."""
    return any((message.metadata or {}).get(PLAIN) for message in messages)


@modelapi(name="hflm")
def hflm() -> type[ModelAPI]:
    """What Inspect opens for a model named ``hflm/FOLDER`` or ``hflm/ORG/NAME``."""
    return HFLMProvider


def _generation(config: GenerateConfig) -> dict[str, Any]:
    """Inspect's settings in lm-eval's names."""
    sampled = bool(config.temperature)
    wanted = {
        "until": config.stop_seqs or [],
        "max_gen_toks": config.max_tokens,
        "do_sample": sampled,
        "temperature": config.temperature if sampled else None,
        "top_p": config.top_p if sampled else None,
        "top_k": config.top_k if sampled else None,
        "seed": config.seed if sampled else None,
    }
    return {key: value for key, value in wanted.items() if value is not None}
