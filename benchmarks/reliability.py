"""What happens when things go wrong: every fault at every stage, kills, full disks.

    python benchmarks/reliability.py > docs/reliability.md        some minutes; needs root for the full disks

The endpoint is a real server on loopback that misbehaves on purpose. The runs are killed and resumed, and
what comes in at the server is compared with what was needed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cowest_bench.config import Limits
from cowest_bench.errors import CowestError
from cowest_bench.lab.evaluate import Evaluate
from cowest_bench.lab.local import Local
from cowest_bench.store import Results
from tests.endpoint import Endpoint
from tests.faults import (
    BAD,
    ERRORS,
    KEY,
    NO_ANSWERS,
    SAMPLES,
    STAGES,
    goes_wrong,
    made,
    said,
    stages,
)

MANY = 100  # samples of a run that is killed
CONNECTIONS = 8  # calls to each model at a time
NAMES = {
    "hang": "no response",
    "broken": "broken JSON",
    "reset": "connection reset",
    "cut": "response cut short",
    "filtered": "refused by a filter",
    "null": "content null",
    "tool call": "a tool call alone",
    "emptied": "filtered, without text",
}


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    """The server, found by the models' names."""
    with Endpoint(said) as running:
        os.environ |= {"LOCAL_BASE_URL": running.url, "LOCAL_API_KEY": KEY}
        yield running


@contextmanager
def folder() -> Iterator[Results]:
    """An empty results folder."""
    with tempfile.TemporaryDirectory(prefix="cowest-reliability-") as name:
        results = Results(name)
        results.prepare()
        yield results


# --- faults ---------------------------------------------------------------------------------------


def fault_at(stage: str, fault: str) -> str:
    """What becomes of a run in which two samples fail at a stage, and of the same when it is resumed."""
    with endpoint() as server, folder() as results:
        step = stages()[stage]
        for each in step.inputs:
            Local(results).do(each)
        server.asked.clear()
        server.fault = goes_wrong(stage, fault)
        started = time.monotonic()
        run = made(step, results)
        seconds = time.monotonic() - started
        rows = results.samples(run)
        errors = sum(row.error is not None for row in rows)
        first = sum(server.asked.values())
        server.fault = lambda text: None
        again = made(step, results)
        asked = sum(server.asked.values()) - first
        right = (len(rows), run.n_scored + errors, errors) == (SAMPLES, SAMPLES, len(BAD))
        needed = sum(step.calls(SAMPLES).values())
        repeated = first + asked - needed - len(BAD)  # the calls that failed have to be repeated
        lost = again.n_total - again.n_scored
    verdict = "" if right and lost == repeated == 0 else " **wrong**"
    return f"{run.n_scored} + {errors}, {first} + {asked}, {seconds:.1f} s{verdict}"


def matrix() -> None:
    """One row for each fault, one column for each stage."""
    print(
        f"""## Faults

{SAMPLES} samples, of which {len(BAD)} fail at one stage, with one attempt for each call. A cell says: samples scored + samples with an
error, calls in this run + calls when the same command runs again with the endpoint repaired, time of the first run. Every
sample is in the first sum; the second run asks exactly what is missing, also after a draft that was answered.
"""
    )
    print(f"| fault | {' | '.join(STAGES)} |\n|{'---|' * (1 + len(STAGES))}")
    for fault in (*ERRORS, *NO_ANSWERS):
        cells = " | ".join(fault_at(stage, fault) for stage in STAGES)
        name = f"HTTP {fault}" if fault.isdecimal() else NAMES.get(fault, fault)
        print(f"| {name} | {cells} |", flush=True)
    print()


# --- kills ----------------------------------------------------------------------------------------


def in_child(step: Evaluate, results: Results) -> int:
    """Start making a step in a child of this process; returns its process id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            limits = Limits(connections=CONNECTIONS)
            Local(Results(results.root), limits=limits).do(step)
            code = 0
        except CowestError:
            code = 4
        finally:
            os._exit(code)
    return child


def kills(count: int) -> None:
    """Kill runs of all three kinds at calls that a seed draws, and resume each until it is done."""
    draw = random.Random(11)
    killed = needed = asked = unfinished = 0
    kinds = ("refine", "alone", "evaluator")
    with endpoint() as server:
        answer = server.answer

        def slowly(messages: list[dict[str, str]]) -> str:
            time.sleep(0.01)
            return answer(messages)

        for number in range(sys.maxsize):
            if killed >= count:
                break
            with folder() as results:
                server.answer = answer
                step = stages(MANY)[kinds[number % len(kinds)]]
                for each in step.inputs:
                    Local(results).do(each)
                server.answer = slowly
                before = sum(server.asked.values())
                while not step.is_made(results):
                    seen, wait = sum(server.asked.values()), draw.randrange(1, MANY)
                    child = in_child(step, results)
                    while sum(server.asked.values()) < seen + wait:
                        if os.waitpid(child, os.WNOHANG)[0]:
                            break
                        time.sleep(0.002)
                    else:
                        os.kill(child, signal.SIGKILL)
                        os.waitpid(child, 0)
                        killed += 1
                run = step.run(results)
                assert run is not None
                of_run = sum(server.asked.values()) - before
                needed += sum(step.calls(MANY).values())
                asked += of_run
                unfinished += run.n_total - run.n_scored
    flights = 2 * CONNECTIONS
    print(
        f"""## Kills

{killed} times kill -9, each when a number of calls had come in that a seed draws, in runs of {MANY} samples (draft and refinement, the
strong model alone, the evaluator), each resumed until it was done. Needed were {needed:,} calls; {asked:,} came in: {asked - needed:,} were
repeated, {(asked - needed) / killed:.1f} for each kill, where at most {flights} are in flight. Answers without a score: {unfinished}.
"""
    )


# --- full disks -----------------------------------------------------------------------------------


def full_disks() -> None:
    """Runs that find the disk full after so much of it, and go on when there is room again."""
    said_so = finished = again = calls = 0
    sizes = [*range(4, 324, 16)]
    for size in sizes:
        with tempfile.TemporaryDirectory() as name, endpoint() as server:
            subprocess.run(("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", name), check=True)
            try:
                results = Results(name)
                results.prepare()
                filler = Path(name) / "filler"
                with suppress(OSError), filler.open("wb", buffering=0) as file:
                    while True:
                        file.write(bytes(4096))
                os.truncate(filler, filler.stat().st_size - size * 1024)
                step = stages(MANY)["refine"]
                try:
                    Local(results).do(step)
                    finished += 1
                except CowestError:
                    said_so += 1
                filler.unlink()
                again += made(step, results, Limits()).n_scored == MANY
                calls += sum(server.asked.values()) - 2 * MANY
            finally:
                subprocess.run(("umount", name), check=True)
    print(
        f"""## Full disks

Runs of {MANY} samples on disks with {sizes[0]} to {sizes[-1]} KiB left, {len(sizes)} of them: {finished} had room, {said_so} ended in one sentence. With room
again, the same command finished {again} of {len(sizes)}; in all, {calls} of {2 * MANY * len(sizes):,} calls were made again.
"""
    )


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="how often a run is killed")
    given = parser.parse_args()
    print(
        """# Reliability

What `benchmarks/reliability.py` printed; the tests in `tests/lab/test_engine.py` and `tests/store/test_records.py` hold it.

- Every answered call is in a journal in the results folder as it arrives. Whatever ends a run, the same command replays what was
  answered and asks for the rest.
- A sample without an answer is a row with its error: it is neither scored as wrong nor left out. `coverage` stands beside every
  score; `cowest run` ends with exit code 4 if a run has no score, and 5 if it has fewer than `--min-coverage` (0.95).
- HTTP 401, 403 and 404 on the first sample end a run after one request; twenty samples in a row without an answer end it too.
- Ctrl-C and SIGTERM finish the calls in flight, record, and say how to go on (exit code 130 or 143); a second one ends at once.
- Records are hashed: a damaged byte is found when the record is read, which is named and skipped.
"""
    )
    matrix()
    kills(given.kills)
    if os.geteuid() == 0:
        full_disks()


if __name__ == "__main__":
    main()
