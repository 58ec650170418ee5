"""Settings of trainings, by trl's own names where it has one. Light: plans are checked with them."""

from __future__ import annotations

from pydantic import Field

from cowest_bench.config import Frozen


class Lora(Frozen):
    """A low-rank adapter on all linear layers (Hu et al., 2022)."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)


class SFTSettings(Frozen):
    """Supervised fine-tuning on prompt-completion rows; the loss is on the completion."""

    learning_rate: float = 2e-4
    epochs: float = 3
    batch_size: int = Field(16, ge=1)
    max_length: int = Field(2048, ge=1)
    lora: Lora | None = Lora()
    gradient_checkpointing: bool = True


class DPOSettings(Frozen):
    """Direct preference optimisation (Rafailov et al., 2023) with a LoRA adapter.

    ``loss_type`` names losses of trl; the ``sft`` term keeps the chosen drafts likely. Every
    ``eval_steps`` the adapter is scored on the dev split, and training ends after ``patience``
    scores without a new best one.
    """

    learning_rate: float = 5e-5
    steps: int = Field(60, ge=1)
    eval_steps: int = Field(10, ge=1)
    patience: int = Field(6, ge=1)
    batch_size: int = Field(32, ge=1)
    beta: float = 0.1
    loss_type: tuple[str, ...] = ("sigmoid", "sft")
    loss_weights: tuple[float, ...] = (1.0, 1.0)
    max_length: int = Field(2048, ge=1)
    lora: Lora = Lora()
    gradient_checkpointing: bool = True
