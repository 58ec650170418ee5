"""Did a checkpoint get worse?"""

from __future__ import annotations

import streamlit as st

from leaderboard import charts, data, tables, ui

snapshot, suite = ui.snapshot(), ui.suite()
names = ui.unique(data.labels(snapshot, suite))

st.title("Did a checkpoint get worse?", anchor=False)
longest = data.most_checkpoints(snapshot, suite)
one, two = st.columns([4, 3], vertical_alignment="bottom")
with one:
    preset = None if longest is None else longest["entry"]
    entry = ui.choose_entry("Entry", names, key="entry", default=preset)
of_entry = data.most_checkpoints(snapshot, suite, entry)
with two:
    preset = None if of_entry is None else of_entry["domain"]
    domains = data.single_domains(snapshot, suite, entry)
    domain = ui.choose("Domain", domains, key="domain", default=preset)
history = data.history(snapshot, suite, entry, domain)
newest = history.iloc[0]
if len(history) == 1:
    st.info(
        "This entry has one checkpoint here. Run the next one on the same data and publish; a weak "
        "model's checkpoints belong together when they name the same base.",
        icon=":material/info:",
    )
else:
    counts = history["verdict"].value_counts()
    told = ", ".join(f"{n} {name}" for name, n in counts.items() if name != "first")
    st.text(f"{len(history)} checkpoints; against the one before: {told}.")
st.altair_chart(charts.history(history))
ui.table(
    tables.checkpoints(history),
    tables.CHECKPOINTS,
    "Checkpoints, newest first, with scores, differences and gate verdicts",
)
name = ui.name_of(names, entry)
if len(history) > 1:
    before = [*ui.checkpoints(history)][1]
    ui.link(
        "samples", "Samples that the newest gets wrong and the one before got right", "quiz",
        entry=name, domain=domain, against=before, show="hurt",
    )  # fmt: skip

st.subheader("Blessed baselines", anchor=False)
blessed = data.baselines(snapshot, suite)
if blessed.empty:
    st.info(
        "No baseline of this suite has been blessed. Bless a run, to check new ones against it:"
    )
    st.code(f"cowest baseline bless {newest['run_id']} --name main\ncowest publish", language=None)
else:
    ui.table(tables.baselines(blessed), tables.BASELINES, "Blessed baselines, newest first")
