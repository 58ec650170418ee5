"""The verbs ``sft`` and ``align``: steps that make models, and the cards that they leave.

A trained model lies in ``models/KIND-ID`` of the results folder. Its card is written last: a folder
without ``card.json`` is left from an interrupted training and is made again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cowest_bench.config import ModelSpec
from cowest_bench.errors import ModelError, RunError
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

    def check(self) -> None:
        """Refuse a model that cannot be trained here.

        Raises:
            ModelError: If its weights are not local, or cannot be there.
        """
        if not self.origin.is_local:
            raise ModelError(
                f"{self.origin.name} is behind an endpoint, where it cannot be trained; give a folder or "
                "hf/ORG/NAME as the weak model, or leave out the method (--tune)."
            )
        require_usable(self.origin)

    def folder(self, results: Results) -> Path:
        return results.models / f"{self.kind}-{self.id}"

    def card(self, results: Results) -> Mapping[str, Any] | None:
        return finished_card(self.folder(results))

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

    def _ready(self, results: Results) -> ModelSpec:
        """The model that it starts from, merged now unless it was before."""
        from cowest_bench.lab.train import merge

        start, spec = self.start(results), opened(self.model, results)
        if spec.adapter is None:
            return start
        folder = Path(start.path)
        with results.claimed(folder.name):
            if finished_card(folder) is None:
                if folder.is_dir():
                    shutil.rmtree(folder)
                merge(spec, folder)
                about = {"kind": "merged", "id": folder.name, "model": weights_of(self.model)}
                write_card(folder, about | {"made_from": {}, "content": weights_hash(folder)})
        return start

    def is_made(self, results: Results) -> bool:
        """Whether the model is there, and was made from the present results."""
        card = self.card(results)
        return card is not None and card["made_from"] == self.made_from(results)

    def made_from(self, results: Results) -> dict[str, str]:
        """Content hashes of what it is made from."""
        return contents(self.models, results)

    def content(self, results: Results) -> str:
        """Hash of the weights, those it started from included."""
        card = self.card(results)
        return content_hash([card["made_from"], card["content"]]) if card else ""

    @contextmanager
    def _making(self, lab: Local) -> Iterator[dict[str, Any]]:
        """An empty folder for the model; what is put into the card is written when all went well."""
        folder = self.folder(lab.results)
        if folder.is_dir():
            shutil.rmtree(folder)
        made_from = self.made_from(lab.results)
        started = time.monotonic()
        card: dict[str, Any] = {}
        yield card
        about = {
            "kind": self.kind,
            "id": self.id,
            "model": weights_of(self.model),
            "settings": self.settings.model_dump(mode="json"),
            "seed": self.seed,
            "made_from": made_from,
            "content": weights_hash(folder),
            "versions": {name: version(name) for name in LIBRARIES},
            "seconds": time.monotonic() - started,
        }
        write_card(folder, about | card)


@dataclass(frozen=True, eq=False)
class Sft(_Training):
    """A model specialised on a task's train split."""

    verb = "sft"
    kind = "sft"

    model: Model
    task: Task
    settings: SFTSettings
    seed: int

    @property
    def inputs(self) -> tuple[Step, ...]:
        return trainings(self.models)

    @property
    def about(self) -> str:
        return "sft"

    @cached_property
    def identity(self) -> dict[str, Any]:
        return {
            "verb": self.verb,
            "model": weights_of(self.model),
            "rows": self.task.sft_id,
            "settings": self.settings.model_dump(mode="json"),
            "seed": self.seed,
        }

    def spec(self, results: Results) -> ModelSpec:
        """The specialised model, without an adapter."""
        folder = self.folder(results)
        start = self.origin
        changes = {"name": str(folder), "adapter": None, "revision": None, "base": start.base_label}
        return start.model_copy(update=changes | {"card": str(folder / "card.json")})

    def make(self, lab: Local) -> None:
        """Train and save the whole model.

        Raises:
            ConfigError: If there are no rows.
        """
        from cowest_bench.lab.train import specialise

        rows = self.task.sft_rows()
        with self._making(lab) as card:
            start = self._ready(lab.results)
            trained = specialise(
                start, rows, self.folder(lab.results), self.settings, self.seed, lab.progress
            )
            card |= {
                "n_rows": len(rows),
                "history": trained.history,
            }


@dataclass(frozen=True, eq=False)
class Align(_Training):
    """A model aligned with preference pairs, as far as that helps the collaboration on dev.

    Attributes:
        model: The model to start from; with the adapter switched off it is also the reference.
        pairs: The preference pairs.
        dev: The collaboration on the dev split with the model as it is now: the score of step 0.
        settings: How to train.
        seed: Of the adapter's weights and the order of the rows.
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
        return (*trainings(self.models), self.pairs)

    @property
    def about(self) -> str:
        return "dpo"

    @cached_property
    def identity(self) -> dict[str, Any]:
        return {
            "verb": self.verb,
            "model": weights_of(self.model),
            "pairs": self.pairs.id,
            "dev": [self.dev.id, self.dev.score_id],
            "settings": self.settings.model_dump(mode="json"),
            "seed": self.seed,
        }

    def check(self) -> None:
        """As for any training, and of the dev evaluation; raises what these raise."""
        super().check()
        self.dev.check()

    def made_from(self, results: Results) -> dict[str, str]:
        """Content hashes of the model and of the pairs."""
        return super().made_from(results) | {"pairs": self.pairs.content(results)}

    def candidates(self) -> list[Evaluate]:
        """The dev evaluations of every checkpoint, the untuned model's first; the most there can be."""
        every, last = self.settings.eval_steps, self.settings.steps
        steps = [*range(every, last, every), last]
        return [self.dev, *(self._candidate(Checkpoint(self, step)) for step in steps)]

    def _candidate(self, checkpoint: Checkpoint) -> Evaluate:
        return replace(self.dev, given={**self.dev.given, "weak": checkpoint})

    def spec(self, results: Results) -> ModelSpec:
        """The model with the adapter of the best step; step 0 is the model as it was."""
        folder = self.folder(results)
        card = self.card(results) or {"best_step": 0}
        start = self.start(results)
        adapter = str(folder) if card["best_step"] else None
        changes = {"adapter": adapter, "card": str(folder / "card.json"), "base": start.base_label}
        return start.model_copy(update=changes)

    def make(self, lab: Local) -> None:
        """Train, and keep the adapter with the best score on dev.

        Raises:
            ConfigError: If there are no rows.
            RunError: If a dev evaluation has no score.
        """
        from cowest_bench.lab.train import align

        rows = self.pairs.rows(lab.results)
        with self._making(lab) as card:
            start = self._ready(lab.results)
            trained = align(
                start,
                rows,
                self.folder(lab.results),
                self.settings,
                self.seed,
                partial(self._dev_score, lab),
                lab.progress,
            )
            card |= {
                "n_rows": len(rows),
                "feedback": self.pairs.feedback(),
                "history": trained.history,
                "dev_scores": {str(step): score for step, score in trained.dev_scores.items()},
                "best_step": trained.best_step,
            }

    def _dev_score(self, lab: Local, step: int, candidate: ModelSpec) -> float:
        """The collaboration's score on dev with a checkpoint as the weak model."""
        asked = self._candidate(Checkpoint(self, step, candidate)) if step else self.dev
        run = lab.do(asked).run(lab.results)
        if run is None or run.score is None:
            raise RunError(f"No dev sample of {self.dev.task.name} could be scored.")
        return run.score


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


# --- folders and cards ----------------------------------------------------------------------------


def finished_card(folder: Path) -> Mapping[str, Any] | None:
    """The card of a finished training or merge in a folder; None if there is none."""
    card = read_card(folder / "card.json", (*KINDS, "merged"))
    known = card.content if card else {}
    return known if {"made_from", "content"} <= known.keys() else None


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """A model card for readers, and the same as JSON, which marks the folder as finished."""
    library = "peft" if card["kind"] == "dpo" else "transformers"
    shown = json.dumps({k: v for k, v in card.items() if k != "history"}, indent=1)
    (folder / "README.md").write_text(
        f"---\nlibrary_name: {library}\ntags: [cowest-bench, {card['kind']}]\n---\n\n"
        f"# {folder.name}\n\nTrained by cowest-bench from:\n\n```json\n{shown}\n```\n",
        encoding="utf-8",
    )
    with replaced(folder / "card.json") as temporary:
        temporary.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
