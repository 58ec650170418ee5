"""Ask the snapshot yourself."""

from __future__ import annotations

import time

import pandas as pd
import streamlit as st

from leaderboard import choices, query, ui

snapshot = ui.snapshot()
SUITE = "'" + ui.suite().replace("'", "''") + "'"
EXAMPLES = {
    "The leaderboard": (
        "SELECT label, domain, round(score, 3) AS score, rank_best, rank_worst, tie_group\n"
        f"FROM entries WHERE suite = {SUITE} ORDER BY domain, score DESC"
    ),
    "Helped and hurt": (
        "SELECT label, domain, helped, hurt, both_right, both_wrong\n"
        f"FROM entries WHERE suite = {SUITE} AND helped IS NOT NULL ORDER BY helped - hurt DESC"
    ),
    "Most tokens": (
        "SELECT run_id, sample_id, weak_output_tokens + strong_output_tokens AS tokens\n"
        f"FROM samples JOIN runs USING (run_id) WHERE suite = {SUITE} ORDER BY tokens DESC LIMIT 20"
    ),
    "Influence by training": (
        "SELECT training, signal, count(*) AS drafts, avg(delta) AS mean, stddev(delta) AS spread\n"
        f"FROM trainings JOIN influences ON influences.run_id = feedback_run WHERE suite = {SUITE}\n"
        "GROUP BY ALL ORDER BY training, signal"
    ),
    "Tables and columns": (
        "SELECT table_name, column_name, data_type FROM information_schema.columns\n"
        "ORDER BY table_name, ordinal_position"
    ),
}

st.caption(
    f"One SELECT statement in DuckDB's SQL; at most {query.SECONDS:g} s and {query.ROWS:,} rows. "
    "It can read the published tables and nothing else."
)
st.pills(
    "Examples", [*EXAMPLES], key="examples", on_change=choices.example,
    args=("examples", "statement", EXAMPLES),
)  # fmt: skip
statement = choices.words(
    "Statement", "statement", EXAMPLES["The leaderboard"], box=st.text_area, limit=5_000, height=130
)
st.caption("Ctrl+Enter runs it; its text is in the address, to share.")
if not statement.strip():
    raise ui.Nothing("Type one SELECT statement, such as:", "SELECT * FROM entries")
started = time.monotonic()
answer = query.ask(snapshot.path, statement)
if answer.error:
    st.code(answer.error, language=None, wrap_lines=True)
else:
    more = f" There are more: the first {len(answer.rows):,} are shown." if answer.cut else ""
    st.caption(f"{len(answer.rows):,} rows in {time.monotonic() - started:.2f} s.{more}")
    table = pd.DataFrame(answer.rows, columns=pd.Index(answer.columns), dtype=object)
    st.dataframe(ui.clean(table.infer_objects()), hide_index=True, alt="Rows of the statement")
