"""Which weak model goes with which strong one?"""

from __future__ import annotations

import streamlit as st

from cowest_bench.analysis import POOLED
from leaderboard import answers, charts, data, tables, text, ui

snapshot, suite = ui.snapshot(), ui.suite()
names = ui.unique(data.labels(snapshot, suite))

st.title("Which weak model goes with which strong one?", anchor=False)
systems = data.pair_systems(snapshot, suite)
if not systems:
    ui.empty(
        "No weak and strong model have been run together in this suite. Run a pairing, then publish:",
        "cowest run --tasks TASK --weak MODEL --strong MODEL\ncowest publish",
    )
left, right = st.columns([2, 3], vertical_alignment="bottom")
with left:
    system = ui.choose("System", systems, key="system")
found = data.pairings(snapshot, suite, system)
with right:
    st.caption(
        "A cell is what the pair gains over the better of its two models alone, on the same samples. "
        "★ significant after Holm's correction; grey: not significant, and too small for this run to detect. "
        "Click a cell to compare the pair with the better model."
    )

widest = float(found["over_best"].abs().max())
st.html(answers.which_go_together(found[found["domain"] == POOLED]))
places = [each for each in data.domains(snapshot, suite) if (found["domain"] == each).any()]
width = max(ui.HALF, 220 + 75 * found["strong"].nunique())
with st.container(horizontal=True, gap="medium"):
    for i, domain in enumerate(places):
        cells = found[found["domain"] == domain]
        with st.container(width=width):
            st.text(text.label(domain))
            event = st.altair_chart(
                charts.heatmap(cells, widest), key=f"heatmap-{i}", on_select="rerun"
            )
        for cell in event.selection.get("cell", []):
            ui.open_pairing(cells, cell, names)

st.subheader("The same in numbers", anchor=False)
ui.table(
    tables.gains(found),
    tables.GAINS,
    "Gains of every pairing over the better of its two models, by domain",
)
