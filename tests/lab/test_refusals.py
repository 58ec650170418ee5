"""What is known to be wrong is refused in one sentence, before the first call."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cowest_bench.errors import ConfigError
from cowest_bench.pocket import demo as pocket
from cowest_bench.store import Results
from tests.conftest import cowest
from tests.endpoint import Endpoint

TASK = "cowest_pocket_medical"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with Endpoint() as running:
        monkeypatch.setenv("LOCAL_BASE_URL", running.url)
        monkeypatch.setenv("LOCAL_API_KEY", "not-a-secret")
        yield running


def plan(folder: Path, **changes: Any) -> str:
    results = Results(folder)
    results.prepare()
    content = {
        "tasks": [TASK],
        "options": {"seed": 3, "limit": 4},
        "weak": pocket.fresh_weak(0, results, 32).model_dump(),
        "strong": "openai-api/local/strong",
        "systems": ["weak", "strong", "collab", "collab-tuned"],
        "method": {"signal": "metric"},
        **changes,
    }
    file = folder / "plan.yaml"
    file.write_text(yaml.safe_dump(content))
    return str(file)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": {"signal": "evaluator"}}, "The signal evaluator needs a model"),
        ({"method": {"signal": "logprob"}}, "does not give the log-probability"),
        ({"format": "kot"}, "There is no interaction format kot; did you mean cot?"),
        ({"format": "direct"}, "has no prompts for the interaction format direct"),
        ({"tasks": ["gsm8k"], "options": {"limit": 4}}, "gsm8k"),
        ({"systems": ["colab"]}, "There is no system colab; did you mean collab"),
        ({"weak": "openai-api/local/weak"}, "is behind an endpoint, where it cannot be trained"),
        ({"strong": None}, "needs two models; give --weak MODEL and --strong MODEL"),
        ({"weak": "./nowhere"}, "There is no model folder ./nowhere"),
        ({"weak": {"name": str(pocket.STRONG), "dtype": "float61"}}, "no number format (dtype)"),
        ({"seed": -1}, "The plan's seed is wrong"),
        ({"seed": 2**63}, "The plan's seed is wrong"),
        ({"seed": 2**32}, "cannot be trained with seed 4294967296"),
        ({"budget": ""}, "A budget of '' is not understood"),
    ],
)
def test_before_the_first_call(
    changes: dict[str, Any], said: str, endpoint: Endpoint, tmp_path: Path
) -> None:
    done = cowest("run", plan(tmp_path, **changes), "--results", str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr and done.stderr.count("\n") == 1
    assert not endpoint.asked
    assert not Results(tmp_path).all_runs()
    assert not list(Results(tmp_path).models.glob("sft-*"))


def test_a_full_disk(endpoint: Endpoint, tmp_path: Path) -> None:
    """A real one, of half a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a disk can only be mounted by root")
    try:
        with pytest.raises(ConfigError, match="No space left on device"):
            Results(disk).prepare()
        options = ("--tasks", TASK, "--strong", "openai-api/local/s", "--systems", "strong")
        done = cowest("run", *options, "--results", str(disk))
        assert done.returncode == 2 and "No space left on device" in done.stderr
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert not endpoint.asked


def test_a_damaged_run_does_not_spoil_another(endpoint: Endpoint, tmp_path: Path) -> None:
    """It made ``run`` fail after all its work, before its table."""
    Results(tmp_path).prepare()
    (tmp_path / "runs" / "0123456789ab.json").write_text('{"run_id": "0123')
    options = ("--tasks", TASK, "--set", "seed=3", "--limit", "4", "--systems", "strong")
    done = cowest("run", *options, "--strong", "openai-api/local/s", "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "medical" in done.stdout
    assert "0123456789ab.json is not a valid run" in done.stderr
