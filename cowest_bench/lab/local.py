"""The lab that really does it, on this machine: what is stored is not made again."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import TypeVar

from cowest_bench.config import Limits, Progress
from cowest_bench.lab.evaluate import Evaluate
from cowest_bench.lab.lab import Lab
from cowest_bench.lab.step import Step
from cowest_bench.models.budget import Budget
from cowest_bench.store import Results, Run

S = TypeVar("S", bound=Step)


class Local(Lab):
    """Makes every step that is not stored, one after the other, in this process."""

    def __init__(
        self,
        results: Results,
        *,
        limits: Limits | None = None,
        budget: Budget | None = None,
        progress: Progress | None = None,
        workers: int = 1,
    ) -> None:
        """``workers`` processes ask, where models are behind endpoints and no budget is to be kept."""
        self.results = results
        self.limits = limits or Limits()
        self.budget = budget
        self.workers = workers
        self.progress: Progress = progress or (lambda what, done, total: None)
        self._tried: set[str] = set()

    def do(self, step: S) -> S:
        """Make a step, unless its result is stored or this lab has tried it before.

        Of an evaluation that ended with errors, only the answers without a score are asked again. Two
        processes that want the same step make it once: the second waits, and finds it made.

        Raises:
            CowestError: See the steps.
        """
        if step.id in self._tried:
            return step
        if not step.is_made(self.results):
            with self._claimed(step):
                if not step.is_made(self.results):
                    step.make(self)
        self._tried.add(step.id)
        return step

    def do_part(self, step: Evaluate, only: Collection[int]) -> Run:
        """Ask only some samples of an evaluation, by their ids; a later call asks the others.

        Raises:
            CowestError: See ``Evaluate``.
        """
        with self._claimed(step):
            return step.ask(self, only)

    def _claimed(self, step: Step) -> AbstractContextManager[None]:
        return self.results.claimed(f"{step.verb}-{step.id}")
