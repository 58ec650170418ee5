"""Local worker processes: quiet, ended with their parent, reporting how far they are.

Workers are spawned, so that they start without the parent's threads and accelerator state. They run plain
functions of picklable arguments: any, submitted to ``processes``, or jobs of which some need others, by
``do_jobs``.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeAlias, TypeVar

from cowest_bench.errors import BudgetError, CowestError

Made = TypeVar("Made")
Parameters = ParamSpec("Parameters")

WorkerProgress = Callable[[str, str, int, int], None]  # who, what, done, total
Events: TypeAlias = "multiprocessing.Queue[tuple[str, str, int, int] | None]"

_events: Events  # in a worker: where it reports its progress

_QUIET = {
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # glibc: keep freed buffers, which otherwise are faulted in anew at every training step.
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
}


@contextmanager
def processes(
    size: int,
    *,
    threads: int,
    log: Path,
    progress: WorkerProgress | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[ProcessPoolExecutor]:
    """Processes to submit work to.

    Args:
        size: How many.
        threads: That each computes on. Sums of floats depend on it: where numbers must be the same on
            every machine, it is a constant.
        log: Where everything that the workers print goes.
        progress: Called, in a thread, with what the workers ``tell``.
        environment: Variables for the workers only, besides those that keep them quiet.
    """
    variables = {**_QUIET, "OMP_NUM_THREADS": str(threads), **(environment or {})}
    context = multiprocessing.get_context("spawn")
    events: Events = context.Queue()
    listener = threading.Thread(target=_listen, args=(events, progress), daemon=True)
    listener.start()
    try:
        start = (log, os.getpid(), events)
        with _Processes(size, context, _start, start, variables=variables) as executor:
            yield executor
    finally:
        events.put(None)
        listener.join()


class _Processes(ProcessPoolExecutor):
    """A pool whose workers start with other variables than the parent's.

    C libraries (OpenMP, malloc) read them when a process starts, and ``spawn`` hands over the parent's
    environment. So they are set there while a process starts, which happens in ``submit``.
    """

    def __init__(
        self,
        size: int,
        context: multiprocessing.context.SpawnContext,
        initializer: Callable[[Path, int, Events], None],
        arguments: tuple[Path, int, Events],
        variables: Mapping[str, str],
    ) -> None:
        super().__init__(size, context, initializer, arguments)
        self._variables = variables

    def submit(
        self,
        fn: Callable[Parameters, Made],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Future[Made]:
        with _environment(self._variables):
            return super().submit(fn, *args, **kwargs)


_environment_lock = threading.Lock()  # else two pools would restore each other's variables


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables in this process for a moment."""
    with _environment_lock:
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def tell(who: str, what: str, done: int, total: int) -> None:
    """In a worker: report how far it is to the parent's ``progress``."""
    if done == total or done % 10 == 0:
        _events.put((who, what, done, total))


def _listen(events: Events, progress: WorkerProgress | None) -> None:
    while (event := events.get()) is not None:
        if progress is not None:
            progress(*event)


def _start(log: Path, parent: int, events: Events) -> None:
    """Prepare a worker: quiet, able to report, and gone when its parent is gone."""
    global _events
    _events = events
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

KILLED = "a worker process was killed, probably out of memory"


@dataclass(frozen=True)
class Job:
    """A piece of work for one worker.

    Attributes:
        key: Identifies the job.
        name: For messages.
        call: Does the job, given the worker's name, for ``tell``. Raises ``CowestError`` if it fails.
        needs: Keys of the jobs that have to be done before.
    """

    key: str
    name: str
    call: Callable[[str], object]
    needs: frozenset[str] = frozenset()


def do_jobs(
    jobs: Sequence[Job],
    size: int,
    *,
    threads: int,
    log: Path,
    restart: bool = True,
    progress: WorkerProgress | None = None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Do jobs in their order, each as soon as the jobs it needs are done; returns why some failed.

    A job that fails stops only those that need it; a ``BudgetError`` stops all that have not begun.

    Args:
        jobs: The jobs.
        size: How many processes.
        threads: As for ``processes``.
        log: As for ``processes``.
        restart: Whether killed processes are replaced. The jobs they were doing have failed in any case.
        progress: Told what each worker does, and how many jobs have begun.
        environment: As for ``processes``.
    """
    work = _Work(jobs, size)
    while work.todo:
        with processes(
            size, threads=threads, log=log, progress=progress, environment=environment
        ) as executor:
            try:
                work.do_all(executor, progress)
            except BrokenProcessPool:
                work.lose(restart)
    return {job.key: work.failed[job.key] for job in jobs if job.key in work.failed}


class _Work:
    """Which jobs are to be done, are being done, are done, and have failed."""

    def __init__(self, jobs: Sequence[Job], size: int) -> None:
        self.todo = [*jobs]
        self.failed: dict[str, str] = {}
        self._done: set[str] = set()
        self._names = {job.key: job.name for job in jobs}
        self._running: dict[Future[object], tuple[Job, str]] = {}
        self._idle = [f"worker {n}" for n in range(size, 0, -1)]

    def do_all(self, executor: ProcessPoolExecutor, progress: WorkerProgress | None) -> None:
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
        """Give up the jobs that were being done, and without a restart also the rest."""
        for job, who in self._running.values():
            self.failed[job.key] = KILLED
            self._idle.append(who)
        self._running.clear()
        if not restart:
            self._give_up(self.todo, f"not tried, since {KILLED}")

    def _begin(self, job: Job, executor: ProcessPoolExecutor) -> None:
        """Submit a job, unless it has to wait or cannot be done."""
        failed = [self._names[key] for key in job.needs if key in self.failed]
        if failed:
            self._give_up([job], f"not tried, since {failed[0]} failed")
        elif self._idle and job.needs <= self._done:
            future = executor.submit(job.call, self._idle[-1])
            self._running[future] = job, self._idle.pop()
            self.todo.remove(job)

    def _end(self, future: Future[object]) -> None:
        job, who = self._running[future]
        try:
            future.result()
            self._done.add(job.key)
        except BudgetError as error:
            self.failed[job.key] = str(error)
            self._give_up(self.todo, "not tried, since the budget is spent")
        except CowestError as error:
            self.failed[job.key] = str(error)
        del self._running[future]
        self._idle.append(who)

    def _give_up(self, jobs: Sequence[Job], reason: str) -> None:
        self.failed |= {job.key: reason for job in jobs}
        self.todo = [job for job in self.todo if job.key not in self.failed]
