"""What did the training do?"""

from __future__ import annotations

import streamlit as st

from leaderboard import data, tables, text, ui
from leaderboard import training_charts as charts

snapshot, suite = ui.snapshot(), ui.suite()

st.title("What did the training do?", anchor=False)
found = data.trainings(snapshot, suite)
if found.empty:
    ui.empty(
        "No training of this suite is known here. Train a weak model on collaborative feedback:",
        "cowest run --tasks TASK --weak MODEL --strong MODEL --tune\ncowest publish",
    )
labels = ui.trainings(found)
training = labels[ui.choose("Training", [*labels], key="training")]
chosen = found[found["training"] == training].iloc[0]
steps = data.steps(snapshot, training)
deltas = data.influences(snapshot, training)

if chosen["kind"] == "dpo":
    best = text.number(chosen["best_step"], ".0f")
    helped, hurt = int((deltas["delta"] > 0).sum()), int((deltas["delta"] < 0).sum())
    st.text(
        f"{text.number(chosen['n_rows'], ',.0f')} preference pairs, from {len(deltas):,} scored drafts "
        f"of which {helped:,} helped the strong model and {hurt:,} hurt it. Step {best} was kept."
    )
else:
    st.text(f"Fine-tuned on {text.number(chosen['n_rows'], ',.0f')} targets.")

present = [
    title for title in dict.fromkeys(of for of, _, _ in charts.CURVES.values())
    if any(steps[column].notna().any() for column, (of, _, _) in charts.CURVES.items() if of == title)
]  # fmt: skip
shown = [("curve", title) for title in present]
shown += [("influence", str(signal)) for signal in sorted(deltas["signal"].unique())]
for start in range(0, len(shown), 2):
    for column, (kind, name) in zip(st.columns(2, gap="medium"), shown[start:], strict=False):
        with column:
            if kind == "curve":
                st.altair_chart(charts.curves(steps, name, chosen["best_step"]))
            else:
                signal = deltas[deltas["signal"] == name]
                st.caption(f"What drafts did to the strong model's answer, by {text.label(name)}")
                st.altair_chart(charts.influence(signal))

lengths = data.draft_lengths(snapshot, suite)
if len(lengths):
    st.subheader("Length of drafts", anchor=False)
    st.altair_chart(charts.draft_lengths(lengths))
st.subheader("All trainings", anchor=False)
ui.table(
    tables.trainings(found),
    tables.TRAININGS,
    "Trainings of weak models with their pairs, chosen steps and seconds",
)
