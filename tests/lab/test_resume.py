"""Nothing is lost when a demo is killed, and nothing is there twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.conftest import SEED

SAME = ("domains", "pooled")  # all but the seconds is the same to the last bit
#: What a demo reports when it begins with something; it is killed right then.
EVENTS = ("medical: sft", "medical: collab feedback", "medical: dpo", "medical: collab dev")


def without_controls(summary: dict[str, Any]) -> dict[str, Any]:
    """What a demo without controls prints, of one with them."""
    return {
        "domains": {
            domain: {name: row for name, row in systems.items() if "(" not in name}
            for domain, systems in summary["domains"].items()
        },
        "pooled": {name: row for name, row in summary["pooled"].items() if "(" not in name},
    }


def killed_at(event: str, command: list[str]) -> None:
    """Start a demo, and end it with kill -9 when it reports the event."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stderr is not None
        reported = next((line for line in run.stderr if line.startswith(event)), None)
        assert reported is not None, f"it ended before {event}"
        os.kill(run.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.xdist_group("resume")
def test_killed_at_every_stage_it_gives_the_same_table(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """In SFT, in feedback, in DPO and between its checkpoints; then it goes on, bit for bit."""
    command = [sys.executable, "-m", "cowest_bench", "demo", "--domain", "medical"]
    command += ["--seed", str(SEED), "--results", str(tmp_path), "--format", "json"]
    for event in EVENTS:
        killed_at(event, command)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    summary = json.loads(done.stdout)
    _, undisturbed = request.getfixturevalue("demo")  # asked for last: it is made meanwhile
    assert {part: summary[part] for part in SAME} == without_controls(undisturbed)
    with duckdb.connect(str(tmp_path / "scores.duckdb"), read_only=True) as db:
        twice = "SELECT run_id, sample_id, epoch FROM samples GROUP BY ALL HAVING count(*) > 1"
        assert db.execute(twice).fetchall() == []
        cells = "SELECT task, split, system, identity FROM runs GROUP BY ALL HAVING count(*) > 1"
        assert db.execute(cells).fetchall() == []
