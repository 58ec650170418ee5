"""What a user chooses: models, a pairing of them, and where results go."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

Role = Literal["weak", "strong"]

#: The four systems, and which roles answer in each. They need only two solvers: ``collab-tuned`` is
#: ``collab`` with another weak checkpoint.
SYSTEMS: dict[str, tuple[Role, ...]] = {
    "weak": ("weak",),
    "strong": ("strong",),
    "collab": ("weak", "strong"),
    "collab-tuned": ("weak", "strong"),
}


class Price(BaseModel):
    """US dollars per million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float
    output: float


class ModelSpec(BaseModel):
    """A model as a user names it.

    ``name`` is a name as Inspect writes it (``openai-api/vllm/llama``, ``hf/org/model``) or a local
    folder. A LoRA ``adapter`` is a folder or a hub name and goes on top.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    adapter: str | None = None
    revision: str | None = None
    dtype: str = "auto"
    price: Price | None = None
    card: str | None = None
    """The card of the training that made the model, if it was made here."""

    @property
    def is_local(self) -> bool:
        """Whether this process loads the weights itself, from a folder or from the hub."""
        named = self.name.startswith(("hf/", "/", "./", "../", "~")) or "/" not in self.name
        return named or Path(self.name).is_dir()

    @property
    def path(self) -> str:
        """Folder or hub name of a local model's weights."""
        return self.name.removeprefix("hf/")

    @property
    def label(self) -> str:
        """A short name for tables."""
        short = self.name.rstrip("/").rsplit("/", 1)[-1]
        return f"{short}+{Path(self.adapter).name}" if self.adapter else short


class Pairing(BaseModel):
    """A weak model that drafts and a strong one that refines."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weak: ModelSpec
    strong: ModelSpec
