"""What happened on a sample?"""

from __future__ import annotations

import streamlit as st

from leaderboard import data, tables, text, ui
from leaderboard.sample import show_sample

SIZE = 15
ALL = "all"

snapshot, suite = ui.snapshot(), ui.suite()
names = ui.unique(data.labels(snapshot, suite))

st.title("What happened on a sample?", anchor=False)
one, two, three = st.columns([4, 2, 4], vertical_alignment="bottom")
with one:
    entry = ui.choose_entry("Entry", names, key="entry", default=data.best_entry(snapshot, suite))
with two:
    domain = ui.choose("Domain", data.single_domains(snapshot, suite, entry), key="domain")
history = data.history(snapshot, suite, entry, domain)
runs = data.runs(snapshot, suite)
others = ui.others(runs[runs["domain"] == domain], names, history)
with three:
    alone = ui.name_of(names, data.alone(snapshot, suite, entry, "strong"))
    against = ui.choose("Against", [*others], key="against", default=alone)
one, two, three = st.columns([5, 4, 1], vertical_alignment="bottom")
with one:
    checkpoints = ui.checkpoints(history)
    run = checkpoints[ui.choose("Checkpoint", [*checkpoints], key="checkpoint")]
with two:
    search = st.text_input(
        "Search", key="search", bind=ui.BIND, placeholder="a word", max_chars=200
    )
with three:
    number = st.number_input("Page", min_value=1, value=1, key="page", bind=ui.BIND)
show = st.segmented_control(
    "Show", [ALL, *data.STATES[:5]], default=ALL, required=True, key="show", bind=ui.BIND
)

found = data.sample_page(
    snapshot, run, others.get(against),
    state=None if show == ALL else show, search=search or "", page=number, size=SIZE,
)  # fmt: skip
pages = max(1, -(-found.total // SIZE))
counts = ", ".join(f"{found.counts.get(state, 0):,} {state}" for state in data.STATES[:5])
st.caption(f"{found.total:,} samples, page {number} of {pages}. In this search: {counts}.")
if snapshot.meta.get("texts") == "no":
    st.info("This snapshot was published without texts: cowest publish --no-texts.")

if found.rows.empty:
    ui.empty("No sample matches. Show all, search for another word, or go to page 1.")
ui.table(
    tables.samples(found.rows),
    tables.SAMPLES,
    "Samples with the weak model's draft, the answer and the gold answer",
    key="questions",
    chooses=("question", [int(number) for number in found.rows["sample_id"]]),
    height=300,
)
st.caption("Click a row to open the sample.")
question = st.number_input(
    "Sample no.", min_value=0, value=None, key="question", bind=ui.BIND,
    placeholder="click a row, or type its number", width=260,
)  # fmt: skip
opened = int(found.rows["sample_id"].iloc[0]) if question is None else int(question)
answers = data.sample(snapshot, run, opened)
if answers.empty:
    ui.empty("This run has no such sample.")
other = data.sample(snapshot, others[against], opened) if others.get(against) else None
show_sample(snapshot, run, answers, other, text.label(against))
