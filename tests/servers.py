"""Real inference servers on loopback, started for a test and ended by their own process id."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def transformers_serve(log: Path) -> Iterator[str]:
    """``transformers serve``, which loads the model that a request names; yields its base URL."""
    port = free_port()
    cache = log.with_name("hub")
    cache.mkdir(exist_ok=True)
    command = [str(Path(sys.executable).with_name("transformers")), "serve"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    with _running(command, log, f"http://127.0.0.1:{port}", {"HF_HUB_CACHE": str(cache)}) as url:
        yield url


@contextmanager
def vllm(python: str, model: Path, log: Path) -> Iterator[str]:
    """Serve a model by vLLM, to which adapters can be added while it runs; yields its base URL.

    ``python`` is the interpreter of an environment that has vLLM.
    """
    port = free_port()
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "2048"]
    command += ["--enable-lora", "--max-lora-rank", "16"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    }
    with _running(command, log, f"http://127.0.0.1:{port}", environment, patience=300) as url:
        yield url


@contextmanager
def _running(
    command: Sequence[str],
    log: Path,
    address: str,
    environment: dict[str, str],
    patience: float = 120,
) -> Iterator[str]:
    with log.open("w") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        )
    try:
        _wait(process, f"{address}/health", log, time.monotonic() + patience)
        yield f"{address}/v1"
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], health: str, log: Path, until: float) -> None:
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended: {log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(health, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise TimeoutError(f"the server did not answer: {log.read_text()[-2000:]}")
