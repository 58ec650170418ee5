"""One sample opened: what was asked, drafted, answered, and what the draft changed."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from leaderboard import data, tables, text, ui
from leaderboard.data import Snapshot


def show_sample(
    snapshot: Snapshot, run_id: str, answers: pd.DataFrame, other: pd.DataFrame | None, against: str
) -> None:
    """Show a sample of a run.

    Args:
        snapshot: For the prompts.
        run_id: The run.
        answers: Its rows of this sample, one for each epoch.
        other: The other run's rows of it.
        against: Name of the other run.
    """
    row = answers.iloc[0]
    with st.container(border=True):
        _titled("Question", row["question"])
        left, right = st.columns(2)
        with left:
            _titled("Gold", row["gold"])
        with right:
            st.html(_score(row, other))
    alone = None if other is None or other.empty else other.iloc[0]
    for i, (_, each) in enumerate(answers.iterrows()):
        if len(answers) > 1:
            st.text(f"Epoch {each['epoch']}")
        _answer(each, alone if i == 0 else None, against)
    prompts = data.prompts(snapshot, run_id)
    if prompts:
        with st.expander("Prompts", icon=":material/chat:"):
            for name, prompt in prompts.items():
                st.text(text.label(name))
                st.code(text.printable(text.bounded(prompt)), language=None, wrap_lines=True)


def _answer(row: pd.Series, alone: pd.Series | None, against: str) -> None:
    parts = [("Weak draft", row["draft"]), ("Final", row["output"])]
    if alone is not None:
        parts += [(f"Draft of {against}", alone["draft"]), (against, alone["output"])]
    parts = [
        each for each in parts if each[0] in ("Final", against) or not text.is_missing(each[1])
    ]
    across = 2 if len(parts) == 4 else len(parts)
    for first in range(0, len(parts), across):
        beside = parts[first : first + across]
        for column, (title, words) in zip(st.columns(across, border=True), beside, strict=True):
            with column:
                _titled(title, words)
    if not text.is_missing(row["draft"]) and not text.is_missing(row["output"]):
        with st.container(border=True):
            st.caption("From draft to final: ~~taken out~~ and **added** words")
            st.html(text.word_diff(str(row["draft"]), str(row["output"])))
    if not text.is_missing(row["error"]):
        _titled("Error", row["error"])
    ui.table(
        tables.calls(row),
        tables.CALLS,
        "Calls, tokens, seconds and cost of this answer, by role",
        width="content",
    )


def _titled(title: str, words: object) -> None:
    st.html(
        text.markup("<small style='opacity:.7'>{title}</small>", title=title) + text.block(words)
    )


def _score(row: pd.Series, other: pd.DataFrame | None) -> str:
    theirs = None if other is None or other.empty else other["score"].iloc[0]
    return text.markup(
        "<small style='opacity:.7'>Score</small><div><b>{score}</b>, the other's {theirs}; "
        "answer read as <b>{answer}</b></div>",
        score=text.number(row["score"]),
        theirs=text.number(theirs),
        answer=row["answer"],
    )
