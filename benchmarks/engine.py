"""What the engine costs: CPU per sample against lm-eval, plain Inspect and a bare openai client.

    python benchmarks/engine.py                      the ratios, in turn, some minutes
    python benchmarks/engine.py --growth 1000,5000,20000,100000

Every contender is a process of its own that asks the same server, on loopback, the same questions. Its CPU
seconds at two sizes give the cost of a sample without that of starting up. Ratios travel between
machines; seconds do not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

QUESTION = "A patient of 54 years is seen with pain in the chest. " * 8
CONNECTIONS = 64
TASK = """\
task: asked
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{q}}}}"
doc_to_target: "A"
generation_kwargs: {{until: ["###"], max_gen_toks: 64}}
filter_list:
  - {{name: letter, filter: [{{function: regex, regex_pattern: "answer : ([A-D])"}}, {{function: take_first}}]}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""


# --- the server -----------------------------------------------------------------------------------


class _Answers(asyncio.Protocol):
    """Answers every request with the same completion, after ``delay`` seconds."""

    delay = 0.0
    body = json.dumps(
        {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": "chest pain, so the answer : A"},
                }
            ],
            "usage": {"prompt_tokens": 90, "completion_tokens": 9, "total_tokens": 99},
        }
    ).encode()
    response = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end].lower()
            size = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            if len(self.received) < end + 4 + size:
                return
            self.received = self.received[end + 4 + size :]
            answer = self.response % (len(self.body), self.body)
            asyncio.get_running_loop().call_later(self.delay, self.transport.write, answer)


async def serve(delay: float) -> None:
    """Print the port, and answer until the process is ended."""
    _Answers.delay = delay
    server = await asyncio.get_running_loop().create_server(_Answers, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def server(delay: float) -> Iterator[str]:
    """The server in a process of its own; yields its base URL."""
    command = [sys.executable, __file__, "--serve", str(delay)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        finally:
            process.kill()


# --- the contenders -------------------------------------------------------------------------------


async def openai_client(count: int, calls: int) -> None:
    """A bare client of the openai package, and nothing on record."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=os.environ["BENCH_BASE_URL"], api_key="none")
    slots = asyncio.Semaphore(CONNECTIONS)

    async def ask(number: int) -> None:
        async with slots:
            for _ in range(calls):
                message = {"role": "user", "content": f"{QUESTION}{number}"}
                await client.chat.completions.create(model="m", messages=[message])  # type: ignore[list-item]

    await asyncio.gather(*(ask(number) for number in range(count)))


def plain_inspect(count: int, calls: int, folder: Path) -> None:
    """Inspect's own eval() with its defaults but for the display, and as many connections."""
    from inspect_ai import Task
    from inspect_ai import eval as inspect_eval
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import get_model
    from inspect_ai.scorer import includes
    from inspect_ai.solver import Generate, TaskState, generate, solver

    @solver
    def first_draft():  # type: ignore[no-untyped-def]
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            await get_model().generate(state.messages)
            return state

        return solve

    samples = [
        Sample(id=number, input=f"{QUESTION}{number}", target="A") for number in range(count)
    ]
    task = Task(
        dataset=MemoryDataset(samples),
        solver=[*[first_draft() for _ in range(calls - 1)], generate()],
        scorer=includes(),
    )
    inspect_eval(
        task,
        model="openai-api/bench/m",
        log_dir=str(folder),
        display="none",
        max_connections=CONNECTIONS,
        max_samples=CONNECTIONS,
    )


def task_file(count: int, folder: Path) -> Path:
    """A task of so many questions, as lm-eval reads it."""
    data = folder / "data.jsonl"
    with data.open("w") as file:
        for number in range(count):
            file.write(json.dumps({"q": f"{QUESTION}{number}"}) + "\n")
    (folder / "asked.yaml").write_text(TASK.format(data=data))
    return folder


def command(who: str, count: int, calls: int, folder: Path, url: str) -> list[str]:
    """The command line of a contender."""
    if who == "cowest":
        plan = folder / "plan.yaml"
        settings = {
            "tasks": ["asked"],
            "options": {"include_path": str(folder)},
            "weak": "openai-api/bench/w",
            "strong": "openai-api/bench/s",
            "systems": ["strong" if calls == 1 else "collab"],
            "limits": {"connections": CONNECTIONS},
        }
        plan.write_text(json.dumps(settings))
        results = str(folder / "results")
        return [sys.executable, "-m", "cowest_bench", "run", str(plan), "--results", results]
    if who == "lm-eval":
        arguments = f"model=m,base_url={url}/chat/completions,num_concurrent={CONNECTIONS},tokenized_requests=False,max_retries=1"
        return [
            *(sys.executable, "-m", "lm_eval", "run", "--model", "local-chat-completions"),
            *("--model_args", arguments, "--tasks", "asked", "--include_path", str(folder)),
            *("--apply_chat_template", "--log_samples", "--output_path", str(folder / "out")),
        ]
    return [sys.executable, __file__, "--contender", who, str(count), str(calls), str(folder)]


def cost(who: str, count: int, calls: int, url: str) -> tuple[float, float]:
    """CPU seconds and peak MiB of a contender."""
    with tempfile.TemporaryDirectory(prefix="cowest-engine-") as name:
        folder = task_file(count, Path(name))
        environment = os.environ | {
            "BENCH_BASE_URL": url,
            "BENCH_API_KEY": "none",
            "OPENAI_API_KEY": "none",
            "HF_HUB_OFFLINE": "1",
        }
        process = subprocess.Popen(
            command(who, count, calls, folder, url),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        told = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{who} ended with {process.returncode}: {told[-2000:].decode()}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


# --- the tables -----------------------------------------------------------------------------------

CONTENDERS = (
    ("openai", 1),
    ("lm-eval", 1),
    ("inspect", 1),
    ("cowest", 1),
    ("openai", 2),
    ("inspect", 2),
    ("cowest", 2),
)


def ratios(small: int, large: int, rounds: int, delay: float) -> None:
    """Milliseconds of CPU a sample, in turn, and the ratio to plain Inspect of the same round."""
    per_sample: dict[tuple[str, int], list[float]] = {each: [] for each in CONTENDERS}
    with server(delay) as url:
        for _ in range(rounds):
            for who, calls in CONTENDERS:
                first, _ = cost(who, small, calls, url)
                second, _ = cost(who, large, calls, url)
                per_sample[who, calls].append(1000 * (second - first) / (large - small))
    print(f"| contender | calls | CPU ms a sample | x plain Inspect (spread) |\n|{'---|' * 4}")
    for (who, calls), taken in per_sample.items():
        peer = per_sample["inspect", calls]
        shares = [one / other for one, other in zip(taken, peer, strict=True)]
        spread = f"{statistics.median(shares):.2f} ({min(shares):.2f}-{max(shares):.2f})"
        print(f"| {who} | {calls} | {statistics.median(taken):.1f} | {spread} |")


def growth(sizes: list[int]) -> None:
    """CPU a sample and memory of ``cowest run`` with one call, from a server that answers at once."""
    print(f"| samples | CPU s | ms a sample beyond the first size | peak MiB |\n|{'---|' * 4}")
    before: tuple[int, float] | None = None
    with server(0.0) as url:
        for size in sizes:
            seconds, peak = cost("cowest", size, 1, url)
            each = "" if before is None else 1000 * (seconds - before[1]) / (size - before[0])
            before = before or (size, seconds)
            told = each if isinstance(each, str) else f"{each:.2f}"
            print(f"| {size:,} | {seconds:.1f} | {told} | {peak:.0f} |", flush=True)


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=int, default=100, help="samples of the smaller size")
    parser.add_argument("--large", type=int, default=1000, help="samples of the larger size")
    parser.add_argument("--rounds", type=int, default=3, help="how often everyone has its turn")
    parser.add_argument("--delay", type=float, default=0.05, help="seconds until an answer")
    parser.add_argument("--growth", help="sizes, with commas: the growth table instead")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--contender", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        asyncio.run(serve(given.serve))
    elif given.contender:
        who, count, calls, folder = given.contender
        if who == "openai":
            asyncio.run(openai_client(int(count), int(calls)))
        else:
            plain_inspect(int(count), int(calls), Path(folder))
    elif given.growth:
        growth([int(size) for size in given.growth.split(",")])
    else:
        ratios(given.small, given.large, given.rounds, given.delay)


if __name__ == "__main__":
    main()
