"""The verbs ``sft`` and ``align``: steps that make models, and the cards that they leave.

A trained model lies in ``models/KIND-ID`` of the results folder. Its card is written last: a folder
without ``card.json`` is left from an interrupted training and is made again.
"""

from __future__ import annotations

import json
import shutil
import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cowest_bench.config import ModelSpec
from cowest_bench.errors import ConfigError, ModelError, RunError
from cowest_bench.lab.evaluate import Evaluate
from cowest_bench.lab.prefer import Prefer
from cowest_bench.lab.step import (
    Model,
    Models,
    Step,
    TrainedModel,
    contents,
    opened,
    origin_of,
    trainings,
    weights_of,
)
from cowest_bench.lab.train import align, merge, specialise
from cowest_bench.lab.training import DPOSettings, SFTSettings
from cowest_bench.models import require_usable, weights_hash
from cowest_bench.store import Results, content_hash, replaced
from cowest_bench.store.cards import KINDS, read_card
from cowest_bench.tasks import Task

if TYPE_CHECKING:
    from cowest_bench.lab.local import Local

LIBRARIES = ("torch", "transformers", "trl", "peft")


class _Training(Step, TrainedModel):
    """What ``sft`` and ``align`` have in common: a folder, a card, and what they start from."""

    kind: str
    model: Model
    settings: SFTSettings | DPOSettings
    seed: int

    @property
    def origin(self) -> ModelSpec:
        return origin_of(self.model)

    @property
    def models(self) -> Models:
        return {"weak": self.model}

    @property
    def inputs(self) -> tuple[Step, ...]:
        return trainings(self.models)

    @property
    def about(self) -> str:
        return self.kind

    @cached_property
    def identity(self) -> dict[str, Any]:
        return {
            "verb": self.verb,
            "model": weights_of(self.model),
            "settings": self.settings.model_dump(mode="json"),
            "seed": self.seed,
            **self._learns_from(),
        }

    @abstractmethod
    def _learns_from(self) -> dict[str, Any]:
        """What identifies its rows, and the evaluation that chooses among its checkpoints."""

    @abstractmethod
    def _train(self, start: ModelSpec, lab: Local) -> dict[str, Any]:
        """Train a model into the folder; returns what the card says of it."""

    def check(self) -> None:
        """Refuse a model whose weights are not local or cannot be there, and a seed of over 32 bits."""
        if not self.origin.is_local:
            raise ModelError(
                f"{self.origin.name} is behind an endpoint, where it cannot be trained; give a folder or "
                "hf/ORG/NAME as the weak model, or leave out the method (--tune)."
            )
        require_usable(self.origin)
        if self.seed >= 2**32:
            raise ConfigError(
                f"{self.origin.name} cannot be trained with seed {self.seed}; choose one below 2**32."
            )

    def folder(self, results: Results) -> Path:
        return results.models / f"{self.kind}-{self.id}"

    def card(self, results: Results) -> Mapping[str, Any]:
        """The card of the finished training; empty if there is none."""
        return _finished_card(self.folder(results))

    def made_from(self, results: Results) -> dict[str, str]:
        """Content hashes of what it is made from."""
        return contents(self.models, results)

    def is_made(self, results: Results) -> bool:
        """Whether the model is there, and was made from the present results."""
        return self.card(results).get("made_from") == self.made_from(results)

    def content(self, results: Results) -> str:
        """Hash of the weights, those it started from included."""
        card = self.card(results)
        return content_hash([card["made_from"], card["content"]]) if card else ""

    def start(self, results: Results) -> ModelSpec:
        """The model that it starts from; its adapter, if it has one, is merged into the weights.

        What a training adds to, and compares with, would otherwise be the model without the adapter.
        """
        spec = opened(self.model, results)
        if spec.adapter is None:
            return spec
        known = content_hash([weights_of(self.model), contents(self.models, results)])
        changes = {"name": str(results.models / f"merged-{known}"), "adapter": None}
        return spec.model_copy(update=changes | {"revision": None, "base": spec.base_label})

    def make(self, lab: Local) -> None:
        """Train, and save the model; raises ``RunError`` if a dev evaluation has no score."""
        results, started = lab.results, time.monotonic()
        folder, made_from = _emptied(self.folder(results)), self.made_from(results)
        spec, start = opened(self.model, results), self.start(results)
        if spec.adapter is not None:
            merged = Path(start.path)
            with results.claimed(merged.name):
                if not _finished_card(merged):
                    merge(spec, _emptied(merged))
                    about = {"kind": "merged", "id": merged.name, "made_from": {}}
                    _write_card(merged, about | {"model": weights_of(self.model)})
        told = self._train(start, lab)
        card = {
            "kind": self.kind,
            "id": self.id,
            "model": weights_of(self.model),
            "settings": self.settings.model_dump(mode="json"),
            "seed": self.seed,
            "made_from": made_from,
            "versions": {name: version(name) for name in LIBRARIES},
            "seconds": time.monotonic() - started,
        }
        _write_card(folder, card | told)


@dataclass(frozen=True, eq=False)
class Sft(_Training):
    """A model specialised on a task's train split."""

    verb = "sft"
    kind = "sft"

    model: Model
    task: Task
    settings: SFTSettings
    seed: int

    def _learns_from(self) -> dict[str, Any]:
        return {"rows": self.task.sft_id}

    def spec(self, results: Results) -> ModelSpec:
        """The specialised model, without an adapter."""
        folder = self.folder(results)
        changes = {"name": str(folder), "adapter": None, "revision": None}
        changes |= {"base": self.origin.base_label, "card": str(folder / "card.json")}
        return self.origin.model_copy(update=changes)

    def _train(self, start: ModelSpec, lab: Local) -> dict[str, Any]:
        rows, folder = self.task.sft_rows(), self.folder(lab.results)
        trained = specialise(start, rows, folder, self.settings, self.seed, lab.progress)
        return {"n_rows": len(rows), "history": trained.history}


@dataclass(frozen=True, eq=False)
class Align(_Training):
    """A model aligned with preference pairs, as far as that helps the collaboration on dev.

    ``dev`` is the collaboration on the dev split with the model as it is now: the score of step 0.
    """

    verb = "align"
    kind = "dpo"

    model: Model
    pairs: Prefer
    dev: Evaluate
    settings: DPOSettings
    seed: int

    @property
    def inputs(self) -> tuple[Step, ...]:
        return (*super().inputs, self.pairs)

    def _learns_from(self) -> dict[str, Any]:
        return {"pairs": self.pairs.id, "dev": [self.dev.id, self.dev.score_id]}

    def check(self) -> None:
        """As for any training, and of the dev evaluation."""
        super().check()
        self.dev.check()

    def made_from(self, results: Results) -> dict[str, str]:
        """Content hashes of the model and of the pairs."""
        return super().made_from(results) | {"pairs": self.pairs.content(results)}

    def candidates(self) -> list[Evaluate]:
        """The dev evaluations of every checkpoint, the untuned model's first; the most there can be."""
        every, last = self.settings.eval_steps, self.settings.steps
        return [self._candidate(step) for step in (0, *range(every, last, every), last)]

    def _candidate(self, step: int, spec: ModelSpec | None = None) -> Evaluate:
        checkpoint = Checkpoint(self, step, spec)
        return replace(self.dev, given={**self.dev.given, "weak": checkpoint}) if step else self.dev

    def spec(self, results: Results) -> ModelSpec:
        """The model with the adapter of the best step; step 0 is the model as it was."""
        folder, start = self.folder(results), self.start(results)
        adapter = str(folder) if self.card(results).get("best_step") else None
        changes = {"adapter": adapter, "card": str(folder / "card.json"), "base": start.base_label}
        return start.model_copy(update=changes)

    def _train(self, start: ModelSpec, lab: Local) -> dict[str, Any]:
        def score(step: int, candidate: ModelSpec) -> float:
            run = lab.do(self._candidate(step, candidate)).run(lab.results)
            if run is None or run.score is None:
                raise RunError(f"No dev sample of {self.dev.task.name} could be scored.")
            return run.score

        rows, folder, pairs = self.pairs.rows(lab.results), self.folder(lab.results), self.pairs
        trained = align(start, rows, folder, self.settings, self.seed, score, lab.progress)
        return {
            "n_rows": len(rows),
            "feedback": {
                "drafts": pairs.drafts.id,
                "alone": pairs.alone.id,
                "judged": pairs.judged.id if pairs.judged else None,
            },
            "history": trained.history,
            "dev_scores": {str(step): score for step, score in trained.dev_scores.items()},
            "best_step": trained.best_step,
        }


@dataclass(frozen=True, eq=False)
class Checkpoint(TrainedModel):
    """A model after some steps of a training; ``candidate`` is there while the training runs."""

    of: Align
    step: int
    candidate: ModelSpec | None = None

    @cached_property
    def id(self) -> str:
        return content_hash({"verb": "checkpoint", "of": self.of.id, "step": self.step})

    @property
    def origin(self) -> ModelSpec:
        return self.of.origin

    def spec(self, results: Results) -> ModelSpec:
        assert self.candidate is not None
        return self.candidate

    def content(self, results: Results) -> str:
        """Hash of the adapter, and of what it was trained from."""
        adapter = Path(str(self.spec(results).adapter))
        return content_hash([self.of.made_from(results), weights_hash(adapter)])


def _finished_card(folder: Path) -> Mapping[str, Any]:
    """The card of a finished training or merge in a folder; empty if there is none."""
    card = read_card(folder / "card.json", (*KINDS, "merged"))
    return card.content if card and {"made_from", "content"} <= card.content.keys() else {}


def _emptied(folder: Path) -> Path:
    if folder.is_dir():
        shutil.rmtree(folder)
    return folder


def _write_card(folder: Path, card: dict[str, Any]) -> None:
    """Mark a folder as finished, and say how it was made and what is in it."""
    card["content"] = weights_hash(folder)
    with replaced(folder / "card.json") as temporary:
        temporary.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
