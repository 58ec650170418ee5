"""The demo: the whole method in all three pocket domains, one process for each domain.

The settings were chosen on the dev splits of worlds 0 to 9 and frozen; they are ordinary arguments of
``cowest``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import wait
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from cowest_bench.config import Asking, ModelSpec, Pairing
from cowest_bench.lab import workers
from cowest_bench.store import Results, Run, replaced
from cowest_bench.systems import COLLAB, COLLAB_TUNED, system_names

if TYPE_CHECKING:
    from cowest_bench.method import Method

DOMAINS = ("medical", "counterfactual", "ethics")
STRONG = Path(__file__).parent / "strong"

#: See the table of controls in docs/pocket.md.
CONTROLS = ("shuffled", "random-pairs", "best-draft-sft")

WIDTHS = (32, 64, 96)  # of the sweep's weak models
THREADS = 1  # of each process, so that the numbers do not depend on the number of cores


def method() -> Method:
    """How the pocket world runs the method: for models of 0.1M and 0.8M parameters."""
    from cowest_bench.lab.training import DPOSettings, SFTSettings
    from cowest_bench.method import Method

    common = {"max_length": 192, "gradient_checkpointing": False}
    sft = {"learning_rate": 5e-3, "epochs": 8, "batch_size": 64, "lora": None, **common}
    dpo = {"learning_rate": 1e-3, "steps": 40, "eval_steps": 10, "batch_size": 32, **common}
    return Method(
        signal="logprob",
        rule="rank",
        k=4,
        sft=SFTSettings.model_validate(sft),
        dpo=DPOSettings.model_validate(dpo),
    )


def strong(early: bool = False) -> ModelSpec:
    """The strong model, whose weights the package ships; or one trained less (``strong-early``)."""
    folder = STRONG.with_name("strong-early") if early else STRONG
    return ModelSpec(name=str(folder), dtype="float32")


def fresh_weak(seed: int, results: Results, width: int = 64) -> ModelSpec:
    """A weak model with random weights (64 wide: 0.1M parameters), which knows nothing before SFT."""
    from cowest_bench.pocket import language, llama

    folder = results.models / f"pocket-weak-{width}-seed-{seed}"
    if not folder.is_dir():
        shape = llama.Shape(
            width, 2, 8 * round(width * 21 / 64), embedding_std=0.05, final_norm=1.0
        )
        making = folder.with_name(f".{folder.name}.{os.getpid()}")
        llama.initialise(seed, shape).save_pretrained(str(making))
        language.save_tokenizer(making)
        with contextlib.suppress(OSError):  # another domain's process was faster
            making.rename(folder)
    return ModelSpec(name=str(folder), dtype="float32")


def write_sweep(
    seed: int,
    results: Results,
    systems: Sequence[str] | None = None,
    domains: Sequence[str] = DOMAINS,
) -> Path:
    """Write the plan of a sweep: weak models of three widths with both strong models."""
    from cowest_bench.models.hflm import quiet

    with quiet():
        weak = [fresh_weak(seed, results, width) for width in WIDTHS]
    content = {
        "tasks": [f"cowest_pocket_{domain}" for domain in domains],
        "options": {"seed": seed},
        "weak": [spec.model_dump(exclude_unset=True) for spec in weak],
        "strong": [strong(early).model_dump(exclude_unset=True) for early in (False, True)],
        "systems": list(systems or system_names()),
        "seed": seed,
        "method": method().model_dump(mode="json", exclude_unset=True),
        "threads": THREADS,
    }
    file = results.root / "pocket-sweep.yaml"
    text = yaml.safe_dump(content, sort_keys=False)
    with replaced(file) as temporary:
        temporary.write_text(f"# Written by cowest demo --sweep.\n{text}", encoding="utf-8")
    return file


def demo(
    seed: int,
    results: Results,
    controls: Sequence[str] = (),
    domains: Sequence[str] = DOMAINS,
    progress: workers.WorkerProgress | None = None,
) -> list[Run]:
    """Run the domains side by side; returns the test runs in order."""
    with workers.processes(
        len(domains),
        threads=THREADS,
        log=results.logs / "demo.log",
        progress=progress,
        environment={"HF_HUB_OFFLINE": "1"},
    ) as executor:
        futures = [executor.submit(_work, domain, seed, results, controls) for domain in domains]
        wait(futures)  # if one fails, the others' runs are stored
        return [run for future in futures for run in future.result()]


def _work(domain: str, seed: int, results: Results, controls: Sequence[str]) -> list[Run]:
    """The test runs in one domain: those of the method, and of the controls asked for."""
    from cowest_bench.lab.local import Local
    from cowest_bench.method import cowest
    from cowest_bench.tasks import load_task

    task = load_task(f"cowest_pocket_{domain}", seed=seed)
    lab = Local(results, progress=partial(workers.tell, domain))
    models, asking = Pairing(weak=fresh_weak(seed, results), strong=strong()), Asking(seed=seed)
    steps = []
    for step in cowest(lab, task, models, method(), asking=asking):
        steps.append(step)
        if step.system is COLLAB and "shuffled" in controls:
            steps.append(lab.evaluate(task, COLLAB, step.given, asking, control="shuffled"))
    for control in ("random-pairs", "best-draft-sft"):
        if control in controls:
            how = method().model_copy(update={"control": control})
            steps += cowest(lab, task, models, how, systems=(COLLAB_TUNED,), asking=asking)
    return [run for run in (step.run(results) for step in steps) if run]
