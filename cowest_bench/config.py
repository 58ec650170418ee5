"""What a user chooses: models, a pairing of them, and how long to wait for an endpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Role = Literal["weak", "strong", "evaluator"]
ROLES: tuple[Role, ...] = ("weak", "strong", "evaluator")

DEFAULT_FORMAT = "cot"
DRAFT_TEMPERATURE = 0.7  # drafts are sampled, because k drafts of one sample have to differ

Progress = Callable[[str, int, int], None]  # what, how many samples or steps are done, of how many


class Frozen(BaseModel):
    """What a user chooses: it never changes, and an unknown field is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Price(Frozen):
    """US dollars per million tokens."""

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)


class ModelSpec(Frozen):
    """A model as a user names it.

    ``name`` is a name as Inspect writes it (``openai-api/vllm/llama``, ``hf/org/model``) or a local
    folder. A LoRA ``adapter`` is a folder or a hub name and goes on top (of local models and of
    ``vllm/``, which serves base and adapters at once).
    """

    name: str
    adapter: str | None = None
    revision: str | None = None
    dtype: str = "auto"
    price: Price | None = None
    sampling: dict[str, Any] = Field(default_factory=dict)
    """Generation settings by Inspect's names that replace the task's, such as ``top_p``; ``null``
    leaves one out, for endpoints that refuse it."""
    remote_code: bool = False
    """Whether code that comes with a local model may run; weights are safetensors in any case."""
    card: str | None = None
    """The card of the training that made the model, if it was made here."""
    base: str | None = None
    """Label of the model from which a training here started."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """A bare name is a model too."""
        return {"name": value} if isinstance(value, str) else value

    @property
    def is_local(self) -> bool:
        """Whether this process loads the weights itself, from a folder or from the hub."""
        named = self.name.startswith(("hf/", "/", "./", "../", "~")) or "/" not in self.name
        return named or Path(self.name).is_dir()

    @property
    def is_free(self) -> bool:
        """Whether it runs on a machine of one's own, so that a call without a price costs nothing."""
        return self.is_local or self.name.startswith(("vllm/", "sglang/", "ollama/"))

    @property
    def path(self) -> str:
        """Folder or hub name of a local model's weights."""
        return self.name.removeprefix("hf/")

    @property
    def label(self) -> str:
        """A short name for tables."""
        short = self.name.rstrip("/").rsplit("/", 1)[-1]
        return f"{short}+{Path(self.adapter).name}" if self.adapter else short

    @property
    def base_label(self) -> str:
        """A name that all checkpoints have in common that were trained here from one model."""
        return self.base or self.label


class Limits(Frozen):
    """How long to wait for an endpoint, and when to give up.

    Inspect's own defaults retry a failing call and wait for a hanging one for ever. Here, a call is tried
    ``1 + retries`` times, each for at most ``attempt_timeout`` seconds and no more once ``timeout``
    seconds have passed in all. A sample whose call still fails, or whose answer cannot be read, is tried
    again from there (``sample_retries``), and is then a row with its error. After so many ``failures`` in a
    row, no further sample is asked. Local models have no timeout.
    """

    attempt_timeout: int = Field(180, gt=0)
    timeout: int = Field(300, gt=0)
    retries: int = Field(4, ge=0)
    sample_retries: int = Field(1, ge=0)
    failures: int = Field(20, gt=0)
    connections: int | None = Field(None, gt=0)
    """Calls to one endpoint at a time; by default the engine adapts it to the endpoint."""


class Asking(Frozen):
    """How samples are asked, beyond what the task says."""

    seed: int = Field(0, ge=0, lt=2**63)
    """Of sampling, and of training."""
    format: str = DEFAULT_FORMAT
    """The interaction format: how the weak model helps, a key of ``prompts.FORMATS``."""
    temperature: float = Field(DRAFT_TEMPERATURE, ge=0)
    """Of drafts; answers are generated with the task's own settings."""


class Pairing(Frozen):
    """A weak model that drafts and a strong one that refines."""

    weak: ModelSpec
    strong: ModelSpec
