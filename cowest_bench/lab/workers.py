"""Local worker processes: quiet, ended with their parent, telling how far they are.

Workers are spawned, so that they start without the parent's threads and accelerator state. What they
run are plain functions of picklable arguments: any, submitted to a ``pool``, or jobs of which some
need others, by ``run``.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from cowest_bench.errors import BudgetError, CowestError

Key = TypeVar("Key", bound=Hashable)
Made = TypeVar("Made")

Progress = Callable[[str, str, int, int], None]  # who, what, done, total
Events: TypeAlias = "multiprocessing.Queue[tuple[str, str, int, int] | None]"

_told: Events  # in a worker: where it tells its progress

_ENVIRONMENT = {
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # glibc: keep freed buffers, which otherwise are faulted in anew at every training step.
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
}


@contextmanager
def pool(
    size: int,
    *,
    threads: int,
    log: Path,
    progress: Progress | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[ProcessPoolExecutor]:
    """So many processes to submit work to.

    Args:
        size: How many.
        threads: That each computes on. Sums of floats depend on it: where numbers must be the same on
            every machine, it is a constant.
        log: Where what the workers print goes.
        progress: Called, in a thread, with what the workers ``tell``.
        environment: Variables for the workers, besides those that keep them quiet.
    """
    # The workers' C libraries read it when they start.
    os.environ.update(_ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)} | dict(environment or {}))
    context = multiprocessing.get_context("spawn")
    told: Events = context.Queue()
    listener = threading.Thread(target=_listen, args=(told, progress), daemon=True)
    listener.start()
    try:
        with ProcessPoolExecutor(size, context, _start, (log, os.getpid(), told)) as executor:
            yield executor
    finally:
        told.put(None)
        listener.join()


def tell(who: str, what: str, done: int, total: int) -> None:
    """In a worker: how far it is, for the parent's ``progress``."""
    if done == total or done % 10 == 0:
        _told.put((who, what, done, total))


def _listen(told: Events, progress: Progress | None) -> None:
    while (event := told.get()) is not None:
        if progress is not None:
            progress(*event)


def _start(log: Path, parent: int, told: Events) -> None:
    """Prepare a worker: quiet, with its way to tell, and gone when its parent is gone."""
    global _told
    _told = told
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    printed = log.open("a", buffering=1, encoding="utf-8")
    os.dup2(printed.fileno(), 1)
    os.dup2(printed.fileno(), 2)
    sys.stdout = sys.stderr = printed


def _end_with(parent: int) -> None:
    """A killed parent cannot end its workers, which would go on writing beside the next start."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


# --- jobs -----------------------------------------------------------------------------------------

KILLED = "a worker process was killed, perhaps for want of memory"


@dataclass(frozen=True)
class Job(Generic[Key, Made]):
    """What a worker does at a time.

    Attributes:
        key: Tells it apart.
        name: For people.
        call: Given the worker's name, for ``tell``. What goes wrong is a ``CowestError``.
        needs: Keys of the jobs that have to be done before.
    """

    key: Key
    name: str
    call: Callable[[str], Made]
    needs: frozenset[Key] = frozenset()


@dataclass
class Outcome(Generic[Key, Made]):
    """What has become of jobs, in their order, whichever was done first.

    Attributes:
        done: What their calls returned.
        failed: Why there is nothing, in a sentence.
    """

    done: dict[Key, Made] = field(default_factory=dict)
    failed: dict[Key, str] = field(default_factory=dict)


def run(
    jobs: Sequence[Job[Key, Made]],
    size: int,
    *,
    restart: bool = True,
    progress: Progress | None = None,
    **how: Any,
) -> Outcome[Key, Made]:
    """Do jobs in their order, each as soon as what it needs is done.

    One that fails stops only those that need it; a ``BudgetError`` stops all that are not begun.

    Args:
        jobs: What is to be done.
        size: How many processes.
        restart: Whether others take the place of processes that were killed. What these were doing
            has failed in any case.
        progress: Told what each worker does, and how many jobs are begun.
        **how: ``threads``, ``log`` and ``environment`` of ``pool``.
    """
    work = _Work(jobs, size)
    while work.todo:
        with pool(size, progress=progress, **how) as executor:
            try:
                work.off(executor, progress)
            except BrokenProcessPool:
                work.lose(restart)
    done, failed = work.outcome.done, work.outcome.failed
    return Outcome(
        {job.key: done[job.key] for job in jobs if job.key in done},
        {job.key: failed[job.key] for job in jobs if job.key in failed},
    )


class _Work(Generic[Key, Made]):
    """Which jobs are to be done, which are being done, and what has become of the others."""

    def __init__(self, jobs: Sequence[Job[Key, Made]], size: int) -> None:
        self.todo = [*jobs]
        self.outcome = Outcome[Key, Made]()
        self._names = {job.key: job.name for job in jobs}
        self._running: dict[Future[Made], tuple[Job[Key, Made], str]] = {}
        self._idle = [f"worker {n}" for n in range(size, 0, -1)]

    def off(self, executor: ProcessPoolExecutor, progress: Progress | None) -> None:
        """Do all of them.

        Raises:
            BrokenProcessPool: If a process was killed.
        """
        while self.todo or self._running:
            for job in [*self.todo]:
                self._begin(job, executor)
            if progress is not None:
                progress("all", "jobs", len(self._names) - len(self.todo), len(self._names))
            for future in wait(self._running, return_when=FIRST_COMPLETED).done:
                self._end(future)

    def lose(self, restart: bool) -> None:
        """Give up what was being done, and without a restart the rest."""
        for job, who in self._running.values():
            self.outcome.failed[job.key] = KILLED
            self._idle.append(who)
        self._running.clear()
        if not restart:
            self._give_up(self.todo, f"not tried, since {KILLED}")

    def _begin(self, job: Job[Key, Made], executor: ProcessPoolExecutor) -> None:
        """Unless it has to wait."""
        failed = [self._names[key] for key in job.needs if key in self.outcome.failed]
        if failed:
            self._give_up([job], f"not tried, since {failed[0]} failed")
        elif self._idle and job.needs <= self.outcome.done.keys():
            future = executor.submit(job.call, self._idle[-1])
            self._running[future] = job, self._idle.pop()
            self.todo.remove(job)

    def _end(self, future: Future[Made]) -> None:
        job, who = self._running[future]
        try:
            self.outcome.done[job.key] = future.result()
        except BudgetError as error:
            self.outcome.failed[job.key] = str(error)
            self._give_up(self.todo, "not tried, since the budget is spent")
        except CowestError as error:
            self.outcome.failed[job.key] = str(error)
        del self._running[future]
        self._idle.append(who)

    def _give_up(self, jobs: Sequence[Job[Key, Made]], reason: str) -> None:
        self.outcome.failed |= {job.key: reason for job in jobs}
        self.todo = [job for job in self.todo if job.key not in self.outcome.failed]
