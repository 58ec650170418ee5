"""One model answers alone: ``weak`` and ``strong``, the baselines of every collaboration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cowest_bench.config import Role
from cowest_bench.systems.system import Lengths, System

if TYPE_CHECKING:
    from cowest_bench.systems.turn import Turn


class Single(System):
    """``y = model(x)``, with the task's own prompt and settings."""

    def __init__(self, role: Role, color: str) -> None:
        self.name = str(role)
        self.roles = (role,)
        self.calls = {role: 1}
        self.color = color

    async def answer(self, turn: Turn) -> None:
        await turn.answer(self.roles[0], turn.messages)

    def tokens(self, role: Role, of: Lengths) -> tuple[float, float]:
        return of.prompt, of.answer


WEAK = Single("weak", "#CC79A7")
STRONG = Single("strong", "#E69F00")
