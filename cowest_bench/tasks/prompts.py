"""What the models are asked.

``{question}`` is the prompt that the task puts to a single model (for a task of lm-eval, its last user
turn). These templates never see a sample's gold answer. A task file may define its own ``draft`` and
``refine`` for each interaction format under ``metadata: prompts:``.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

REFINE = """\
{question}

A domain expert has drafted the following. It may contain mistakes.

{draft}

Use what is right in the draft, correct what is wrong, and answer the question in the form it asks for.\
"""


class Prompts(BaseModel):
    """The two prompts of a collaboration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    draft: str
    refine: str = REFINE

    def for_draft(self, question: str) -> str:
        """What the weak model is asked."""
        return self.draft.replace("{question}", question)

    def for_refinement(self, question: str, draft: str) -> str:
        """What the strong model is asked; braces in the question or the draft are left alone."""
        parts = self.refine.split("{question}", 1)
        return question.join(part.replace("{draft}", draft) for part in parts)


#: What the weak model writes for the strong one, by interaction format (section 4.3 of the paper).
FORMATS = {
    "direct": Prompts(draft="{question}"),
    "knowledge": Prompts(
        draft="{question}\n\nWrite down the background knowledge that is needed to answer this."
    ),
    "cot": Prompts(
        draft="{question}\n\nGive the background knowledge, reason step by step, then answer."
    ),
}
