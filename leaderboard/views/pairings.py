"""Which weak model goes with which strong one?"""

from __future__ import annotations

import streamlit as st

from cowest_bench.analysis import POOLED
from leaderboard import answers, charts, choices, data, tables, text, ui

snapshot, suite = ui.snapshot(), ui.suite()
names = ui.unique(data.labels(snapshot, suite))
systems = data.pair_systems(snapshot, suite)
if not systems:
    raise ui.Nothing(
        "No weak and strong model have been run together in this suite. Run a pairing, then publish:",
        "cowest run --tasks TASK --weak MODEL --strong MODEL\ncowest publish",
    )
left, right = st.columns([2, 3], vertical_alignment="bottom")
with left:
    system = choices.one_of("System", systems, "system")
found = data.pairings(snapshot, suite, system)
with right:
    st.caption(
        "A cell is what the pair gains over the better of its two models alone, on the same samples. "
        "★ significant after Holm's correction; grey: not significant, and too small for this run to detect. "
        "Click a cell to compare the pair with the better model."
    )
st.html(answers.which_go_together(found[found["domain"] == POOLED]))


def open_pairing(weak: str, strong: str, domain: str) -> None:
    """Go to the comparison of a pairing with the better of its models, or with the strong one."""
    shown = found.assign(weak=found["weak"].map(text.label), strong=found["strong"].map(text.label))
    pair = shown[(shown["weak"] == weak) & (shown["strong"] == strong)]["entry"]
    if len(pair):
        baseline = data.better_alone(snapshot, suite, pair.iloc[0])
        made = {
            "candidate": ui.name_of(names, pair.iloc[0]),
            "baseline": ui.name_of(names, baseline),
        }
        given = {name: value for name, value in made.items() if value}
        st.switch_page("views/compare.py", query_params={"suite": suite, "domain": domain} | given)


widest = float(found["over_best"].abs().max())
places = [each for each in data.domains(snapshot, suite) if (found["domain"] == each).any()]
width = max(ui.HALF, 220 + 75 * found["strong"].nunique())
with st.container(horizontal=True, gap="medium", key="heatmaps"):
    for i, domain in enumerate(places):
        cells = found[found["domain"] == domain]
        with st.container(width=width):
            st.text(text.label(domain))
            event = ui.chart(charts.heatmap, cells, widest, key=f"heatmap-{i}", on_select="rerun")
        for cell in event.selection.get("cell", []):
            open_pairing(cell.get("weak"), cell.get("strong"), domain)

if found["weak"].nunique() > charts.MOST_ROWS:
    st.caption(f"The {charts.MOST_ROWS} weak models that gain most; all are in the table.")
st.subheader("The same in numbers", anchor=False)
ui.table(
    found,
    tables.GAINS,
    "Gains of every pairing over the better of its two models, by domain",
)
