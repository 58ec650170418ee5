"""Is one better than the other, and on which samples?"""

from __future__ import annotations

import streamlit as st

from cowest_bench.analysis import POOLED
from cowest_bench.errors import ComparisonError
from leaderboard import answers, charts, comparison, data, tables, text, ui

snapshot, suite = ui.snapshot(), ui.suite()
names = ui.unique(data.labels(snapshot, suite))

st.title("Is it better, and where?", anchor=False)
one, two, three = st.columns([4, 4, 2], vertical_alignment="bottom")
with one:
    candidate = ui.choose_entry("Candidate", names, key="candidate", default=None)
alone = data.alone(snapshot, suite, candidate, "strong")
with two:
    baseline = ui.choose_entry("Baseline", names, key="baseline", default=alone)
with three:
    margin = ui.choose_margin()
if candidate == baseline:
    ui.empty("Choose two different entries.")
try:
    found = comparison.compare_entries(snapshot, suite, candidate, baseline, margin)
except ComparisonError as error:
    st.text(text.printable(str(error)))
    ui.empty(
        "Choose another baseline, or run both on the same data, then publish:", "cowest publish"
    )
rows = comparison.table(found)
ours, theirs = (ui.name_of(names, entry) or "" for entry in (candidate, baseline))
st.html(answers.verdict(rows, ours, theirs, margin))

left, right = st.columns(2, gap="medium")
with left:
    st.subheader("Differences", anchor=False)
    st.altair_chart(charts.forest(rows, margin))
    st.caption(
        "The band is the margin. The intervals of all domains hold together with 95%; in the pooled "
        "one, every sample counts the same."
    )
with right:
    st.subheader("Samples", anchor=False)
    domain = ui.choose("Domain", rows["domain"].iloc[::-1].tolist(), key="domain")
    row = rows[rows["domain"] == domain].iloc[0]
    counts = {name: int(row[name]) for name in ("helped", "hurt", "both_right", "both_wrong")}
    st.altair_chart(charts.square(**counts))
    place = rows["domain"].iloc[0] if domain == POOLED else domain
    with st.container(horizontal=True):
        for state in ("helped", "hurt"):
            ui.link(
                "samples", f"{counts[state]:,} {state}" if place == domain else f"Samples {state}",
                "quiz", entry=ours, against=theirs, domain=place, show=state,
            )  # fmt: skip

st.subheader("In numbers", anchor=False)
ui.table(
    tables.contrasts(rows),
    tables.CONTRASTS,
    "Verdict, difference, interval and counts for every domain",
)
