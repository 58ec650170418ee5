"""The verbs of the method. A lab differs from another only in ``do``.

A verb describes a step and hands it to ``do``: ``Local`` makes it on this machine, ``Planned`` notes it
(the dry run, and the work list of a sweep). The method is written against the verbs, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

from cowest_bench.config import Asking, ModelSpec
from cowest_bench.lab.evaluate import Evaluate
from cowest_bench.lab.judge import Judge
from cowest_bench.lab.prefer import PairSettings, Prefer
from cowest_bench.lab.step import Model, Models, Step
from cowest_bench.lab.training import DPOSettings, SFTSettings
from cowest_bench.lab.trainings import Align, Sft
from cowest_bench.systems import System
from cowest_bench.tasks import Task

S = TypeVar("S", bound=Step)


class Lab(ABC):
    """The verbs, whatever comes of the steps that they describe."""

    @abstractmethod
    def do(self, step: S) -> S:
        """Take on a step, and return it for others to build on."""

    def sft(self, model: Model, train: Task, settings: SFTSettings, seed: int) -> Sft:
        """Specialise a model on the train split of a task."""
        return self.do(Sft(model, train, settings, seed))

    def evaluate(
        self,
        task: Task,
        system: System,
        given: Models,
        asking: Asking,
        *,
        epochs: int = 1,
        graded: bool = False,
        control: str | None = None,
    ) -> Evaluate:
        """Answer and score every sample of a split with a system; arguments as for ``Evaluate``."""
        return self.do(Evaluate(task, system, given, asking, epochs, graded, control))

    def judge(self, drafts: Evaluate, alone: Evaluate, evaluator: ModelSpec) -> Judge:
        """Have an evaluator rate every answer with a draft against the one without."""
        return self.do(Judge.of(drafts, alone, evaluator))

    def prefer(
        self,
        drafts: Evaluate,
        alone: Evaluate,
        judged: Judge | None,
        settings: PairSettings,
        *,
        seed: int = 0,
        imitate: bool = False,
    ) -> Prefer:
        """Turn what the drafts changed into preference pairs."""
        return self.do(Prefer(drafts, alone, judged, settings, seed, imitate))

    def align(
        self, model: Model, pairs: Prefer, dev: Evaluate, settings: DPOSettings, seed: int
    ) -> Align:
        """Align a model with preference pairs; ``dev`` is the collaboration's score before."""
        return self.do(Align(model, pairs, dev, settings, seed))
