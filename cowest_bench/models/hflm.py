"""lm-eval's HFLM with sampling that is seeded for every sequence. It imports torch: import it late."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from lm_eval.models.huggingface import HFLM
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.utils import logging as transformers_logging


class SeededHFLM(HFLM):
    """HFLM whose samples depend only on weights, prompt and seed, not on the rest of the batch.

    Greedy generation is HFLM's own, untouched.
    """

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **settings: Any
    ) -> torch.Tensor:
        seed = settings.pop("seed", None)
        if settings.get("do_sample") and seed is not None:
            settings.pop("do_sample")
            warpers: list[LogitsProcessor] = [
                TemperatureLogitsWarper(settings.pop("temperature", 1.0))
            ]
            if "top_k" in settings:
                warpers.append(TopKLogitsWarper(settings.pop("top_k")))
            if "top_p" in settings:
                warpers.append(TopPLogitsWarper(settings.pop("top_p")))
            noise = GumbelNoise(context, settings["attention_mask"], seed)
            settings["logits_processor"] = LogitsProcessorList([*warpers, noise])
            settings["do_sample"] = False
        generated: torch.Tensor = super()._model_generate(context, max_length, stop, **settings)
        return generated

    def _create_model(self, *args: Any, peft: str | None = None, **settings: Any) -> None:
        """Load the base, then the adapter on top, both as they were trained.

        HFLM would first cut the vocabulary to the tokenizer's, and look for the adapter at the base's
        revision.
        """
        super()._create_model(*args, **settings)
        if peft is not None:
            from peft import PeftModel

            self._model: torch.nn.Module = PeftModel.from_pretrained(self.model, peft)


class GumbelNoise(LogitsProcessor):
    """Adds standard Gumbel noise to the logits, so that their argmax is a sample of the softmax.

    (The Gumbel-max trick.) Each sequence has its own generator, seeded by its prompt and the seed.
    """

    def __init__(self, context: torch.Tensor, mask: torch.Tensor, seed: int) -> None:
        self._generators = []
        for ids, kept in zip(context, mask, strict=True):
            key = f"{seed} {ids[kept.bool()].tolist()}".encode()
            row_seed = int.from_bytes(hashlib.blake2b(key, digest_size=7).digest())
            self._generators.append(torch.Generator(context.device).manual_seed(row_seed))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (batch, vocabulary) with noise added; called once for every token."""
        noise = [
            torch.empty_like(row).exponential_(generator=generator)
            for row, generator in zip(scores, self._generators, strict=True)
        ]
        return scores - torch.stack(noise).log()


def default_device() -> str:
    """The accelerator if there is one (HFLM itself asks for cuda even where there is none)."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator.type if accelerator else "cpu"


def free_memory() -> int:
    """Bytes that are free on the device where models are loaded."""
    try:
        free, _ = torch.accelerator.get_memory_info()
    except RuntimeError:  # no accelerator, or one that shares the machine's memory (MPS)
        free = psutil.virtual_memory().available
    return int(free)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the progress bars and notices of transformers and lm-eval."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
