"""The method on one page, in the paper's order (CoWest, ACL 2025, arXiv 2504.15188).

A weak model that knows a domain is specialised and drafts; a strong model that does not know it
refines; what the drafts changed about the strong model's answers becomes preference pairs, and DPO
aligns the weak model with them. ``lab`` is who does it: this machine, a dry run, a sweep.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

from pydantic import Field

from cowest_bench.config import Asking, ModelSpec, Pairing
from cowest_bench.errors import ConfigError
from cowest_bench.lab.evaluate import Evaluate
from cowest_bench.lab.lab import Lab
from cowest_bench.lab.prefer import PairSettings
from cowest_bench.lab.step import Model, Models
from cowest_bench.lab.training import DPOSettings, SFTSettings
from cowest_bench.systems import COLLAB, COLLAB_TUNED, STRONG, WEAK, System
from cowest_bench.tasks import Task

SYSTEMS = (WEAK, STRONG, COLLAB, COLLAB_TUNED)


class Method(PairSettings):
    """How the method is run; the defaults suit a model of some billion parameters."""

    rounds: int = Field(1, ge=1)
    k: int = Field(4, ge=2)
    """Drafts of every feedback sample."""
    control: Literal["random-pairs", "best-draft-sft"] | None = None
    """Tune on pairs drawn at random from the same drafts, or imitate the best ones without pairs."""
    sft: SFTSettings = SFTSettings()
    dpo: DPOSettings = DPOSettings()

    @property
    def judged(self) -> bool:
        return self.signal == "evaluator"

    @property
    def graded(self) -> bool:
        return self.signal == "logprob"

    @property
    def imitate(self) -> bool:
        return self.control == "best-draft-sft"

    @property
    def pairing(self) -> PairSettings:
        """How drafts become pairs."""
        known = {name: getattr(self, name) for name in PairSettings.model_fields}
        return PairSettings(
            **known | ({"rule": "random"} if self.control == "random-pairs" else {})
        )


def cowest(
    lab: Lab,
    task: Task,
    models: Pairing,
    how: Method | None = None,
    *,
    systems: Sequence[System] = SYSTEMS,
    evaluator: ModelSpec | None = None,
    asking: Asking | None = None,
    epochs: int = 1,
) -> Iterator[Evaluate]:
    """Run the whole method on a task, and yield the evaluation of every system as it is made.

    Args:
        lab: Who does the steps.
        task: A task with train, feedback and dev splits, on the split that systems are compared on.
        models: The weak model, untrained in the domain, and the strong model.
        how: How the method is run.
        systems: What to compare; without a tuned one, the weak model is specialised and no more.
        evaluator: Who judges the answers, where the method's signal is ``evaluator``.
        asking: The interaction format, the temperature of drafts, and the seed (of training too).
        epochs: How often each sample of the compared split is asked.

    Raises:
        ConfigError: If the signal is ``evaluator`` and there is none.
        CowestError: See the verbs.
    """
    how, asking = how or Method(), asking or Asking()
    strong, seed = models.strong, asking.seed
    ask = partial(lab.evaluate, asking=asking)
    tuned = [system for system in systems if system.tuned]

    # 1. Specialise the weak model in the domain.
    weak: Model = lab.sft(models.weak, task.on("train"), how.sft, seed)
    pair: Models = {"weak": weak, "strong": strong}
    for system in systems:
        if not system.tuned:
            yield ask(task, system, pair, epochs=epochs)

    for _ in range(how.rounds if tuned else 0):
        # 2. Collaborative feedback: what did each draft change about the strong model's answer?
        drafts = ask(task.on("feedback"), COLLAB, pair, epochs=how.k, graded=how.graded)
        alone = ask(task.on("feedback"), STRONG, pair, graded=how.graded)
        judged = lab.judge(drafts, alone, _required(evaluator)) if how.judged else None
        pairs = lab.prefer(drafts, alone, judged, how.pairing, seed=seed, imitate=how.imitate)

        # 3. Align the weak model with it, as far as that helps the collaboration on dev.
        weak = lab.align(weak, pairs, Evaluate(task.on("dev"), COLLAB, pair, asking), how.dpo, seed)
        pair = {"weak": weak, "strong": strong}
        for system in tuned:
            yield ask(task, system, pair, epochs=epochs, control=how.control)


def _required(evaluator: ModelSpec | None) -> ModelSpec:
    if evaluator is None:
        raise ConfigError("The signal evaluator needs a model; give one with --evaluator MODEL.")
    return evaluator
