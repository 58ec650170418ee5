"""What did the training do?"""

from __future__ import annotations

from typing import Any

import streamlit as st

from leaderboard import choices, data, tables, text, ui
from leaderboard import training_charts as charts

snapshot, suite = ui.snapshot(), ui.suite()

found = data.trainings(snapshot, suite)
if found.empty:
    raise ui.Nothing(
        "No training of this suite is known here. Train a weak model on collaborative feedback:",
        "cowest run --tasks TASK --weak MODEL --strong MODEL --tune\ncowest publish",
    )
labels = ui.trainings(found)
training = labels[choices.one_of("Training", [*labels], "training")]
chosen = found[found["training"] == training].iloc[0]
steps = data.steps(snapshot, training)
deltas = data.influences(snapshot, training)

if chosen["kind"] == "dpo":
    best = text.number(chosen["best_step"], ".0f")
    drafts = deltas.groupby("signal").size().max() if len(deltas) else 0
    st.text(
        f"{text.number(chosen['n_rows'], ',.0f')} preference pairs from "
        f"{drafts:,} scored drafts. Step {best} was kept."
    )
else:
    st.text(f"Fine-tuned on {text.number(chosen['n_rows'], ',.0f')} targets.")

pictures: list[tuple[Any, ...]] = [
    (
        f"What the drafts did, by {signal}",
        charts.influence,
        deltas[deltas["signal"] == signal][["delta"]],
        str(signal),
    )
    for signal in sorted(deltas["signal"].unique(), reverse=True)
]
pictures += [
    (title.capitalize(), charts.curves, steps, title, chosen["best_step"])
    for title in charts.recorded(steps)
]
with st.container(horizontal=True, gap="medium"):
    for title, *picture in pictures:
        with st.container(width=ui.HALF):
            st.text(text.label(title))
            ui.chart(*picture)

lengths = data.draft_lengths(snapshot, suite)
if len(lengths):
    st.subheader("Length of drafts", anchor=False)
    ui.chart(charts.draft_lengths, lengths, data.systems(snapshot))
st.subheader("All trainings", anchor=False)
ui.table(
    found,
    tables.TRAININGS,
    "Trainings of weak models with their pairs, chosen steps and seconds",
)
