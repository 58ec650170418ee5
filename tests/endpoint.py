"""A real server on loopback that speaks the OpenAI protocol and can misbehave on chosen questions."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, TypeAlias

#: An HTTP status, ``hang``, ``broken`` (JSON), ``reset`` or ``cut`` (connections), ``filtered`` or
#: ``refused`` (by the endpoint), a URL to go to instead, or a key of ``CHOICE`` or ``USAGE``.
Fault: TypeAlias = str | None

#: Answers without an answer: what is changed in an ordinary response.
CHOICE: dict[str, dict[str, Any]] = {
    "null": {"message": {"role": "assistant", "content": None}},
    "tool call": {
        "finish_reason": "tool_calls",
        "message": {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
    },
    "emptied": {"finish_reason": "content_filter", "message": {"role": "assistant", "content": ""}},
    "empty": {"message": {"role": "assistant", "content": ""}},  # an answer, if a wrong one
    "no choices": {},
}
USAGE: dict[str, Any] = {
    "absurd usage": {"prompt_tokens": 1e20, "completion_tokens": -3, "total_tokens": "many"},
    "no usage": None,
}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # connections that wait to be accepted; more are reset

    def handle_error(self, *_: Any) -> None:
        """Nothing on standard error when a connection ends early."""


class Endpoint:
    """Serves ``/v1/chat/completions`` while the context is open.

    Attributes:
        answer: From the conversation to the text of the answer.
        fault: From the last turn's text to what goes wrong with it, if anything.
        asked: How often each last turn came in, faults included.
        usage: Tokens (words) in and out of everything answered, by model, as reported to clients.
        model: The name it reports as the model that has answered.
    """

    def __init__(
        self,
        answer: Callable[[list[dict[str, str]]], str] = lambda messages: "answer : A",
        fault: Callable[[str], Fault] = lambda question: None,
    ) -> None:
        self.answer = answer
        self.fault = fault
        self.asked: Counter[str] = Counter()
        self.usage: dict[str, Counter[str]] = {}
        self.authorizations: set[str] = set()
        self.model = "answerer-2026-11-01"
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self._handler())

    @property
    def url(self) -> str:
        """Base URL for clients."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def complete(self, request: dict[str, Any]) -> dict[str, Any]:
        """The response to one request, with its usage noted."""
        messages = request["messages"]
        text = self.answer(messages)
        tokens = {
            "prompt_tokens": sum(len(m["content"].split()) for m in messages),
            "completion_tokens": len(text.split()),
        }
        with self._lock:
            self.usage.setdefault(request["model"], Counter()).update({**tokens, "calls": 1})
        choice = {"index": 0, "finish_reason": "stop"}
        return {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": self.model,
            "choices": [{**choice, "message": {"role": "assistant", "content": text}}],
            "usage": {**tokens, "total_tokens": sum(tokens.values())},
        }

    def wait_for(self, requests: int, patience: float = 120) -> None:
        """Return when so many requests have come in; an AssertionError if they do not."""
        until = time.monotonic() + patience
        while sum(self.asked.values()) < requests:
            assert time.monotonic() < until, f"only {sum(self.asked.values())} requests came"
            time.sleep(0.005)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = json.loads(body)
                question = request["messages"][-1]["content"]
                authorization = self.headers.get("Authorization", "")
                with endpoint._lock:
                    endpoint.asked[question] += 1
                    endpoint.authorizations.add(authorization)
                fault = endpoint.fault(question)
                if fault and fault.isdecimal():  # an unkind one, that repeats what it was sent
                    self._send(
                        int(fault), json.dumps({"error": {"message": f"no {authorization}"}})
                    )
                elif fault == "refused":
                    self._send(400, json.dumps({"error": {"message": f"bad {authorization}"}}))
                elif fault and fault.startswith("http"):  # sent on to there
                    self._send(307, "{}", Location=fault)
                elif fault == "hang":
                    endpoint._released.wait()
                elif fault == "broken":
                    self._send(200, '{"choices": [{"message": {"conte')
                elif fault == "reset":
                    linger = struct.pack("ii", 1, 0)  # closing sends RST
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.close_connection = True
                    self.connection.close()
                elif fault == "cut":
                    self.send_response(200)
                    self.send_header("Content-Length", "1000")
                    self.end_headers()
                    self.wfile.write(b'{"choices": [')
                    self.close_connection = True
                elif fault in ("401", "403", "404", "429"):
                    self._send(
                        int(fault), json.dumps({"error": {"message": f"no {authorization}"}})
                    )
                elif fault is not None and fault != "filtered":
                    response = endpoint.complete(request)
                    response["choices"][0] |= CHOICE.get(fault, {})
                    response["usage"] = USAGE.get(fault, response["usage"])
                    if fault == "no choices":
                        response["choices"] = []
                    self._send(200, json.dumps(response))
                elif fault == "filtered":
                    error = {"message": "blocked by policy", "code": "content_filter"}
                    self._send(400, json.dumps({"error": error}))
                else:
                    self._send(200, json.dumps(endpoint.complete(request)))

            def _send(self, status: int, text: str, **headers: str) -> None:
                payload = text.encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: Any) -> None:
                """Nothing on standard error."""

        return Handler
