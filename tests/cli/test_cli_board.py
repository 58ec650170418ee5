"""``cowest board``: what it starts, and what it says when it cannot."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from cowest_bench.cli import main
from cowest_bench.store import Results
from tests.servers import _wait, free_port
from tests.stored import right, store


def test_the_board_is_served_on_this_machine_after_publishing(
    results: Results, tmp_path: Path
) -> None:
    pytest.importorskip("streamlit")
    store(results, right(3, 4), system="weak")
    port, log = free_port(), tmp_path / "log"
    command = [sys.executable, "-m", "cowest_bench", "board", "--port", str(port)]
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, "--results", str(results.root)], stdout=out, stderr=subprocess.STDOUT
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}/_stcore/health", log, time.monotonic() + 120)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as page:
            assert b"<html" in page.read().lower()
    finally:
        process.terminate()
        process.wait(30)
    # The app itself took the place of the command: nothing is left that still listens.
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2)
    assert (results.root / "board.duckdb").is_file()
    said = log.read_text()
    assert f"http://127.0.0.1:{port}" in said and "0.0.0.0" not in said


def test_without_streamlit_it_says_what_to_install(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "streamlit", None)  # as if it were not installed
    done = CliRunner().invoke(main, ["board", "--results", str(results.root)])
    assert done.exit_code == 2 and "pip install 'cowest-bench[board]'" in done.stderr


def test_a_snapshot_that_is_not_there_is_said(tmp_path: Path) -> None:
    pytest.importorskip("streamlit")
    done = CliRunner().invoke(main, ["board", "--snapshot", str(tmp_path / "none.duckdb")])
    assert done.exit_code == 2 and "cowest publish --to" in done.stderr


def test_results_that_are_not_there_are_said(tmp_path: Path) -> None:
    for command in ("publish", "board"):
        done = CliRunner().invoke(main, [command, "--results", str(tmp_path / "none")])
        assert done.exit_code == 2 and "There are no results" in done.stderr
