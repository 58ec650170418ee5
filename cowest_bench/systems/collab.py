"""The collaboration of the paper: the weak model drafts, the strong model refines.

``collab-tuned`` is the same system with the weak model that the method has aligned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cowest_bench.config import Role
from cowest_bench.systems.system import Lengths, System

if TYPE_CHECKING:
    from cowest_bench.systems.turn import Turn


class Collab(System):
    """``y = strong(x, weak(x))``, by the task's prompts of the interaction format."""

    roles = ("weak", "strong")
    calls = {"weak": 1, "strong": 1}  # noqa: RUF012 (never changed)
    compared_with = ("weak", "strong")
    drafts = interaction = True

    def __init__(self, name: str, color: str, *, untuned: str | None = None) -> None:
        self.name = name
        self.color = color
        self.tuned = untuned is not None
        self.untuned = untuned

    async def answer(self, turn: Turn) -> None:
        """Sample a draft, then refine it with the task's own settings."""
        draft = await turn.draft("weak", turn.asking(turn.prompts.for_draft(turn.draft_question)))
        refinement = turn.prompts.for_refinement(turn.question, draft)
        await turn.answer("strong", turn.asking(refinement))

    def tokens(self, role: Role, of: Lengths) -> tuple[float, float]:
        if role == "weak":
            return of.prompt, of.draft
        return of.prompt + of.draft, of.answer


COLLAB = Collab("collab", "#009E73")
COLLAB_TUNED = Collab("collab-tuned", "#56B4E9", untuned="collab")
