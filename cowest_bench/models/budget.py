"""Budgets: a call is made only if it cannot exceed the budget.

Before a call, its highest possible cost is reserved (a token is at least one byte of the prompt, and an
answer has at most ``max_tokens``); afterwards the actual cost replaces it. A run stops when the next
call could exceed the budget; the samples that were not asked can be asked later. Only the endpoint knows
what it charges for attempts that failed before one succeeded.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from cowest_bench.config import ModelSpec, Price, Role
from cowest_bench.errors import BudgetError, ConfigError

if TYPE_CHECKING:
    from inspect_ai.model import ChatMessage, ModelUsage

TEMPLATE_TOKENS = 64  # that a chat template adds to a conversation, at most
TURN_TOKENS = 16  # that it adds to each turn, at most
WAIT = 0.02  # seconds between two checks whether a call fits beside those in flight


class Budget:
    """A limit in US dollars or in calls, and what has been spent of it."""

    def __init__(self, usd: float | None = None, calls: int | None = None) -> None:
        self.usd = usd
        self.calls = calls
        self.spent_usd = 0.0
        self.spent_calls = 0
        self._reserved = 0.0
        self._in_flight = 0

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``20usd`` or ``500calls``.

        Raises:
            ConfigError: If the text is neither.
        """
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(usd|calls)", text.strip().lower())
        if match is None or (match[2] == "calls" and "." in match[1]):
            raise ConfigError(f"A budget of {text!r} is not understood; give 20usd or 500calls.")
        return cls(usd=float(match[1])) if match[2] == "usd" else cls(calls=int(match[1]))

    def __str__(self) -> str:
        return f"{self.usd:g} usd" if self.usd is not None else f"{self.calls} calls"

    def check(self, specs: Mapping[Role, ModelSpec]) -> None:
        """Refuse a budget in dollars for a model whose price is unknown.

        Raises:
            ConfigError: If a model behind an endpoint has no price.
        """
        for role, spec in specs.items():
            if self.usd is not None and spec.price is None and not spec.is_free:
                raise ConfigError(
                    f"A budget in dollars needs the price of the {role} model {spec.name}; give "
                    f"--{role}-price INPUT,OUTPUT (dollars per million tokens), or a budget in calls."
                )

    async def _reserve(self, usd: float) -> None:
        """Reserve the highest possible cost of a call, as soon as it fits beside those in flight.

        Raises:
            BudgetError: If it could exceed the budget even when all others are settled.
        """
        while self._in_flight and self._exceeded_by(usd):
            await anyio.sleep(WAIT)
        if self._exceeded_by(usd):
            raise BudgetError(f"Not asked: the call could have exceeded the budget of {self}.")
        self.spent_calls += 1
        self._reserved += usd
        self._in_flight += 1

    def _exceeded_by(self, usd: float) -> bool:
        too_expensive = self.usd is not None and self.spent_usd + self._reserved + usd > self.usd
        too_many = self.calls is not None and self.spent_calls >= self.calls
        return too_expensive or too_many

    @asynccontextmanager
    async def reserved(
        self, of: Price | None, messages: Sequence[ChatMessage], max_tokens: int | None
    ) -> AsyncIterator[Callable[[int | None, int | None], None]]:
        """Reserve the highest possible cost of a call; yields what takes its actual tokens.

        A call that fails keeps its reservation, since nobody knows what the endpoint charges for it.

        Raises:
            BudgetError: If the call could exceed the budget.
        """
        size = sum(len(message.text.encode()) + TURN_TOKENS for message in messages)
        most = spent = price(of, size + TEMPLATE_TOKENS, max_tokens or 0)
        await self._reserve(most)

        def note(tokens_in: int | None, tokens_out: int | None) -> None:
            nonlocal spent
            if tokens_in is not None and tokens_out is not None:
                spent = price(of, tokens_in, tokens_out)

        try:
            yield note
        finally:
            self._in_flight -= 1
            self._reserved = self._reserved - most if self._in_flight else 0.0
            self.spent_usd += spent


def tokens(usage: ModelUsage | None) -> tuple[int | None, int | None]:
    """Input and output tokens as the server counts them, cached ones included; None if it does not say."""
    if usage is None:
        return None, None
    cached = (usage.input_tokens_cache_read or 0) + (usage.input_tokens_cache_write or 0)
    return usage.input_tokens + cached, usage.output_tokens


def price(of: Price | None, tokens_in: float, tokens_out: float) -> float:
    """US dollars for a number of tokens; 0 for a model without a price (one's own machine)."""
    return (of.input * tokens_in + of.output * tokens_out) / 1e6 if of else 0.0
