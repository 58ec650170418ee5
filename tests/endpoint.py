"""A real server on loopback that speaks the OpenAI protocol and can misbehave on chosen questions."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self

Fault = Literal["500", "hang", "broken", "filtered", "refused"] | None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # connections that wait to be accepted; more are reset


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
                if fault == "500":  # an unkind one, that repeats what it was sent
                    self._send(500, json.dumps({"error": {"message": f"bad {authorization}"}}))
                elif fault == "refused":
                    self._send(400, json.dumps({"error": {"message": f"bad {authorization}"}}))
                elif fault == "hang":
                    endpoint._released.wait()
                elif fault == "broken":
                    self._send(200, '{"choices": [{"message": {"conte')
                elif fault == "filtered":
                    error = {"message": "blocked by policy", "code": "content_filter"}
                    self._send(400, json.dumps({"error": error}))
                else:
                    self._send(200, json.dumps(endpoint.complete(request)))

            def _send(self, status: int, text: str) -> None:
                payload = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: Any) -> None:
                """Nothing on standard error."""

        return Handler
