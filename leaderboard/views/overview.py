"""Which pairing should I take?"""

from __future__ import annotations

import streamlit as st

from cowest_bench.analysis import POOLED
from leaderboard import answers, charts, data, tables, ui

snapshot, suite = ui.snapshot(), ui.suite()
names = ui.unique(data.labels(snapshot, suite))
systems = data.systems(snapshot)

st.title("Which pairing should I take?", anchor=False)
one, two, three, four = st.columns([3, 3, 2, 3], vertical_alignment="bottom")
with one:
    domain = ui.choose("Domain", data.domains(snapshot, suite), key="domain")
entries = data.entries(snapshot, suite, domain)
ranked = entries[entries["rank_best"].notna()]
with two:
    titles = {answers.COSTS[column][0]: column for column in answers.known_costs(ranked)}
    title = ui.choose("Cost", [*titles], key="cost")
with three:
    margin = ui.choose_margin()
with four:
    everything = st.toggle(
        "Show controls",
        help="Also entries that are not ranked because too few of their samples have a score.",
        key="all",
        bind=ui.BIND,
    )
shown = entries if everything else ranked

st.html(answers.which_to_take(entries, titles[title], margin))

# --- one entry --------------------------------------------------------------------------

pairings = answers.pairings(entries)
preset = None if pairings.empty else pairings.iloc[0]["entry"]
with st.container(horizontal=True, vertical_alignment="bottom"):
    entry = ui.choose_entry("Look closer at", names, key="entry", default=preset, width=380)
    chosen = ui.name_of(names, entry)
    strong = ui.name_of(names, data.alone(snapshot, suite, entry, "strong"))
    untuned = ui.name_of(names, data.before_tuning(snapshot, suite, entry))
    there = {"entry": chosen, "domain": None if domain == POOLED else domain}
    if strong and strong != chosen:
        ui.link("compare", "Against strong alone", "balance", candidate=chosen, baseline=strong)
        ui.link("samples", "What its drafts fixed", "quiz", show="helped", **there)
    if untuned:
        ui.link("samples", "What DPO fixed", "auto_fix", against=untuned, show="helped", **there)
    ui.link("regressions", "Its checkpoints", "timeline", **there)

# --- all entries ----------------------------------------------------------------------------------

ui.table(
    tables.ranking(shown),
    tables.RANKING,
    "Entries by rank, with scores, gains over the strong model alone, and costs",
    key="ranking",
    chooses=("entry", [ui.name_of(names, each) for each in shown["entry"]]),
)
st.subheader("What a score costs", anchor=False)
if ranked[titles[title]].notna().any():
    st.altair_chart(charts.pareto(ranked, systems, titles[title], title))
else:
    st.caption("Not known: these runs recorded neither prices, nor tokens, nor seconds.")
if shown["score"].notna().any():
    st.subheader("Scores", anchor=False)
    st.altair_chart(charts.intervals(shown, systems))
st.caption(
    "Entries in one tie group cannot be told apart by rank. A rank such as 1-3 is a 95% interval. The "
    "page Methods explains how each number is computed."
)
