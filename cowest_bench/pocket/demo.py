"""The demo: the whole method in all three pocket domains, one process for each domain.

The settings were chosen on the dev splits of worlds 0 to 9 and frozen; they are ordinary arguments of
``cowest``.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cowest_bench.config import ModelSpec, Pairing
from cowest_bench.records import Results, Run

if TYPE_CHECKING:
    from cowest_bench.method import Method

DOMAINS = ("medical", "counterfactual", "ethics")
STRONG = Path(__file__).parent / "strong"

#: What else the same drafts and models can show; see the README's table of controls.
CONTROLS = ("shuffled", "random-pairs", "best-draft-sft")

Progress = Callable[[str, str, int, int], None]  # domain, what, done, total
Events: TypeAlias = "multiprocessing.Queue[tuple[str, str, int, int]]"

_told: Events  # in a worker: where it tells its progress

_WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # glibc: keep freed buffers, which otherwise are faulted in anew at every training step.
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
}


def method() -> Method:
    """How the pocket world runs the method: for models of 0.1M and 0.8M parameters."""
    from cowest_bench.method import Method
    from cowest_bench.train import DPOSettings, SFTSettings

    return Method(
        signal="logprob",
        rule="rank",
        k=4,
        sft=SFTSettings(
            learning_rate=5e-3,
            epochs=8,
            batch_size=64,
            max_length=192,
            lora=None,
            gradient_checkpointing=False,
        ),
        dpo=DPOSettings(
            learning_rate=1e-3,
            steps=40,
            eval_steps=10,
            batch_size=32,
            max_length=192,
            gradient_checkpointing=False,
        ),
    )


def strong(early: bool = False) -> ModelSpec:
    """The strong model, whose weights the package ships; or one trained less (``strong-early``)."""
    folder = STRONG.with_name("strong-early") if early else STRONG
    return ModelSpec(name=str(folder), dtype="float32")


def fresh_weak(seed: int, results: Results, width: int = 64) -> ModelSpec:
    """A weak model with random weights (64 wide: 0.1M parameters), which knows nothing before SFT."""
    from cowest_bench.pocket import language, llama

    shape = llama.Shape(
        width=width,
        layers=2,
        intermediate=8 * round(width * 21 / 64),
        embedding_std=0.05,
        final_norm=1.0,
    )
    folder = results.models / f"pocket-weak-{width}-seed-{seed}"
    if not folder.is_dir():
        making = folder.with_name(f".{folder.name}.{os.getpid()}")
        llama.initialise(seed, shape).save_pretrained(str(making))
        language.save_tokenizer(making)
        with contextlib.suppress(OSError):  # another domain's process was faster
            making.rename(folder)
    return ModelSpec(name=str(folder), dtype="float32")


def run_domain(
    domain: str,
    seed: int,
    results: Results,
    controls: Sequence[str] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[Run]:
    """The test runs of all systems in one domain of a world, and of the controls asked for."""
    from cowest_bench.evaluate import evaluate
    from cowest_bench.method import cowest
    from cowest_bench.tasks import load_task

    task = load_task(f"cowest_pocket_{domain}", seed=seed)
    pairing = Pairing(weak=fresh_weak(seed, results), strong=strong())
    how = method()
    run_method = partial(cowest, task, pairing, results=results, seed=seed, progress=progress)
    for run in run_method(method=how):
        yield run
        if run.system == "collab" and "shuffled" in controls:
            yield evaluate(
                task,
                "collab",
                results=results,
                weak=run.weak,
                strong=run.strong,
                seed=seed,
                control="shuffled",
                progress=progress,
            )
    for control in ("random-pairs", "best-draft-sft"):
        if control in controls:
            *_, tuned = run_method(method=how.model_copy(update={"control": control}))
            yield tuned


def demo(
    seed: int,
    results: Results,
    controls: Sequence[str] = (),
    domains: Sequence[str] = DOMAINS,
    progress: Progress | None = None,
) -> list[Run]:
    """Run the domains side by side; returns the test runs in order.

    Each process computes on one thread, so that the numbers do not depend on the number of cores.
    """
    os.environ.update(_WORKER_ENVIRONMENT)  # the workers' C libraries read it when they start
    context = multiprocessing.get_context("spawn")
    told: Events = context.Queue()
    start = (str(results.root), os.getpid(), told)
    with ProcessPoolExecutor(len(domains), context, _start, start) as pool:
        futures = [pool.submit(_work, domain, seed, results, controls) for domain in domains]
        _watch(futures, told, progress)
        return [run for future in futures for run in future.result()]


def _watch(futures: Sequence[Future[Any]], told: Events, progress: Progress | None) -> None:
    """Pass on what the workers tell until all are done; where one fails, the others' work is kept."""
    while not all(future.done() for future in futures):
        with contextlib.suppress(queue.Empty):
            event = told.get(timeout=0.2)
            if progress is not None:
                progress(*event)


def _work(domain: str, seed: int, results: Results, controls: Sequence[str]) -> list[Run]:
    def progress(what: str, done: int, total: int) -> None:
        if done == total or done % 10 == 0:
            _told.put((domain, what, done, total))

    return list(run_domain(domain, seed, results, controls, progress))


def _start(root: str, parent: int, told: Events) -> None:
    """Prepare a worker: quiet, with its way to tell, and gone when its parent is gone."""
    global _told
    _told = told
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    log = (Path(root) / "logs" / "demo.log").open("a", buffering=1, encoding="utf-8")
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    sys.stdout = sys.stderr = log


def _end_with(parent: int) -> None:
    """A killed parent cannot end its workers, which would go on writing beside the next start."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
