"""How is each number made?"""

from __future__ import annotations

import json

import streamlit as st

from cowest_bench.analysis import ALPHA, MARGIN
from cowest_bench.store.schema import MIN_COVERAGE
from leaderboard import answers, data, text, ui

snapshot, suite = ui.snapshot(), ui.suite()

with st.container(horizontal=True, gap="large"):
    words, facts = st.container(width=560), st.container(width=370)
with words:
    st.subheader("What is compared", anchor=False)
    st.markdown(
        "A **weak** model that knows a domain drafts, a **strong** one that does not know it refines the "
        "draft into the answer. The weak model of a tuned system has been aligned by DPO on what its "
        "drafts did to the strong model's answers. A gain is the difference to the better of the models "
        "alone. The name of a control is in brackets, such as (shuffled): drafts written for another "
        "sample. The systems here:"
    )
    st.html(
        "<ul>" + "".join(map(answers.system, data.systems(snapshot).to_dict("records"))) + "</ul>"
    )
    st.latex(r"y^* = \pi_s(x, \pi_w(x)) \qquad \Delta = E(\pi_s(x, y)) - E(\pi_s(x))")
    st.subheader("How to read an interval", anchor=False)
    st.markdown(
        "A score is the mean over samples, with a 95% interval: Wilson's, at the effective sample size "
        "of the clusters. A gain is a mean difference on the same samples, so it is known more "
        "precisely than the two scores suggest; its interval is Tango's for right and wrong "
        "answers, Student's *t* for graded ones. Two intervals of scores may overlap while the "
        "difference is clear: read the interval of the difference."
    )
    st.latex(r"se^2 = \frac{1}{n^2} \sum_g a_g \Big(\sum_{i \in g} (x_i - \bar x)\Big)^2")
    st.markdown(
        f"A verdict compares the interval of the difference with a margin (here {MARGIN:g}, level "
        f"{ALPHA:g}): *improved* above 0, *equivalent* within ± the margin, *non-inferior* above minus "
        "the margin, *regressed* below 0, else *inconclusive*: more samples are needed. "
        "★ and p are after Holm's correction. *Detectable* is the smallest true "
        "difference that such a run finds with 80% power."
    )
    st.subheader("Ranks and ties", anchor=False)
    st.markdown(
        "A rank such as 1-3 contains the true rank with 95%, from paired differences on the samples "
        "that all entries have scores for. Controls, and entries with fewer than "
        f"{MIN_COVERAGE:.0%} of their samples scored, are not ranked. In this order, a new tie group "
        "begins with an entry whose ranks no longer overlap those of the group's first entry."
    )
    st.subheader("Missing scores", anchor=False)
    st.markdown(
        "A sample that could not be scored is an error: neither wrong nor hidden. *Scored* is shown "
        "beside every score, and two runs are compared on the samples both have scores for."
    )
with facts:
    if ui.fictional(suite):
        st.warning(
            "The pocket world is fictional: its facts are drawn from a seed, its models are tiny. It "
            "shows that the method works; its scores say nothing about real models.",
            icon=":material/science:",
        )
    st.subheader("The suite", anchor=False)
    st.text(text.label(suite))
    for row in data.versions(snapshot, suite).itertuples():
        made_by = ", ".join(f"{k} {v}" for k, v in json.loads(row.versions or "{}").items())
        st.html(text.markup("{runs} runs by {by}", runs=row.runs, by=text.bounded(made_by, 300)))
    st.subheader("The snapshot", anchor=False)
    shown = {name: value for name, value in snapshot.meta.items() if name != "notes"}
    st.html("<br>".join(text.markup("{a}: {b}", a=name, b=value) for name, value in shown.items()))
    left_out = json.loads(snapshot.meta.get("notes") or "[]")
    if left_out:
        st.subheader("Left out", anchor=False)
        st.html("<br>".join(text.escaped(note, 300) for note in left_out[:20]))
        st.caption(f"{len(left_out):,} in all; cowest publish lists them too.")
