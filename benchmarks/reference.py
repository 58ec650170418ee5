"""Make the runs of ``results/submitted`` again: world 11 of the pocket world.

    python benchmarks/reference.py --results DIR        # about 15 minutes, two cores

Two earlier checkpoints of one weak model (trained on half of the facts; trained with another seed), then
every pairing of three weak and two strong models, and the controls. With the same library versions, only
the times differ. ``cowest submit`` then adds them to ``results/submitted``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import yaml

from cowest_bench.pocket import demo
from cowest_bench.store import Results

SEED = 11
CHECKPOINTS = ((SEED, {"seed": SEED, "facts": 0.5}), (SEED + 1, {"seed": SEED}))


@click.command()
@click.option("--results", "root", type=click.Path(path_type=Path), required=True)
def main(root: Path) -> None:
    """Make all runs in DIR; finished ones are cached."""
    results = Results(root)
    results.prepare()
    for seed, options in CHECKPOINTS:
        plan = {
            "tasks": [f"cowest_pocket_{domain}" for domain in demo.DOMAINS],
            "options": options,
            "seed": seed,
            "weak": demo.fresh_weak(SEED, results).model_dump(),
            "strong": demo.strong().model_dump(),
            "systems": ["weak", "strong", "collab", "collab-tuned"],
            "method": demo.method().model_dump(mode="json"),
        }
        file = root / f"checkpoint-{len(options)}-{seed}.yaml"
        file.write_text(yaml.safe_dump(plan), encoding="utf-8")
        cowest("run", str(file), "--results", str(root))
    for what in ("--sweep", "--controls"):
        cowest("demo", what, "--seed", str(SEED), "--results", str(root))


def cowest(*arguments: str) -> None:
    """Run the command line on one thread, on which the numbers were made."""
    environment = os.environ | {"OMP_NUM_THREADS": str(demo.THREADS)}
    subprocess.run([sys.executable, "-m", "cowest_bench", *arguments], check=True, env=environment)


if __name__ == "__main__":
    main()
