"""Local worker processes: quiet, ended with their parent, telling how far they are.

Workers are spawned, so that they start without the parent's threads and accelerator state. What they
run are plain functions of picklable arguments.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

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
