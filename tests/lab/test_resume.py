"""Nothing is lost when a demo is killed, and nothing is there twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.conftest import SEED

SAME = ("domains", "pooled")  # all but the seconds is the same to the last bit


def without_controls(summary: dict[str, Any]) -> dict[str, Any]:
    """What a demo without controls prints, of one with them."""
    return {
        "domains": {
            domain: {name: row for name, row in systems.items() if "(" not in name}
            for domain, systems in summary["domains"].items()
        },
        "pooled": {name: row for name, row in summary["pooled"].items() if "(" not in name},
    }


@pytest.mark.xdist_group("resume")
def test_killed_three_times_it_gives_the_same_table(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Kill -9 at random moments; the rest gives the table of an undisturbed demo bit for bit."""
    command = [sys.executable, "-m", "cowest_bench", "demo", "--domain", "medical"]
    command += ["--seed", str(SEED), "--results", str(tmp_path), "--format", "json"]
    rng = random.Random()  # other moments each time this test is run
    moments = [rng.uniform(5, 45) for _ in range(3)]
    for moment in moments:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            time.sleep(moment)
            os.kill(process.pid, signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    summary = json.loads(done.stdout)
    _, undisturbed = request.getfixturevalue("demo")  # asked for last: it is made meanwhile
    assert {part: summary[part] for part in SAME} == without_controls(undisturbed), moments
    with duckdb.connect(str(tmp_path / "scores.duckdb"), read_only=True) as db:
        twice = "SELECT run_id, sample_id, epoch FROM samples GROUP BY ALL HAVING count(*) > 1"
        assert db.execute(twice).fetchall() == []
        cells = "SELECT task, split, system, weak_hash, strong_hash, graded FROM runs GROUP BY ALL"
        assert db.execute(f"{cells} HAVING count(*) > 1").fetchall() == []
