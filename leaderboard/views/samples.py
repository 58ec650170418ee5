"""What happened on a sample?"""

from __future__ import annotations

import streamlit as st

from leaderboard import choices, data, sample, tables, text, ui

SIZE = 15
ALL = "all"
OPENED = ("page", "question")  # another filter finds other samples

snapshot, suite = ui.snapshot(), ui.suite()
names = ui.unique(data.labels(snapshot, suite))
runs = data.runs(snapshot, suite)
sides = ui.sides(runs, names)

# --- whose samples, and against which -------------------------------------------------------------

one, two, three = st.columns([4, 2, 4], vertical_alignment="bottom")
with one:
    best = ui.name_of(names, data.best_entry(snapshot, suite))
    entries = [name for name in sides if name in names]
    chosen = choices.one_of("Entry", entries, "entry", best, resets=OPENED)
entry = names[chosen]
with two:
    domain = choices.one_of("Domain", [*sides[chosen]], "domain", resets=OPENED)
history = runs[(runs["entry"] == entry) & (runs["domain"] == domain)]
checkpoints = ui.checkpoints(history)
one_left, two_right = st.columns([5, 4], vertical_alignment="bottom")
with one_left:
    run = checkpoints[choices.one_of("Checkpoint", [*checkpoints], "checkpoint", resets=OPENED)]
others = {
    name: own[domain] for name, own in sides.items() if own.get(domain) not in (None, run)
}  # fmt: skip
with three:
    if others:
        strong = ui.name_of(names, data.alone(snapshot, suite, entry, "strong"))
        against = choices.one_of("Against", [*others], "against", strong, resets=OPENED)
    else:
        against = ""
        st.caption("There is no other run in this domain to compare with.")
with two_right:
    search = choices.words("Search", "search", resets=OPENED, placeholder="a word")
show = choices.one_of(
    "Show", [ALL, *data.STATES[:5]], "show", box=st.segmented_control, resets=OPENED, required=True
)
state = "" if show == ALL else show
found = data.find_samples(snapshot, run, others.get(against), state, search)
counts = ", ".join(f"{found.counts.get(name, 0):,} {name}" for name in data.STATES[:5])
st.caption(f"{len(found.numbers):,} samples. In this search: {counts}.")
if snapshot.meta.get("texts") == "no":
    st.info("This snapshot was published without texts: cowest publish --no-texts.")

# --- which of them --------------------------------------------------------------------------------

numbers = found.numbers
asked = choices.asked_number("question")
if not numbers and asked is None:
    raise ui.Nothing("No sample matches. Show all, or search for another word.")
place = numbers.index(asked) if asked in numbers else None
pages = max(1, -(-len(numbers) // SIZE))
with st.container(key="opened"):
    left, right = st.columns([2, 3], gap="medium")
with left:
    default = 1 if place is None else place // SIZE + 1
    page = int(choices.number(f"Page, of {pages:,}", 1, pages, default, "page", resets=OPENED[1:]))
    listed = numbers[SIZE * (page - 1) : SIZE * page]
    ui.table(
        data.sample_rows(snapshot, run, others.get(against), listed),
        tables.SAMPLES,
        "Samples with the weak model's draft, the answer and the gold answer",
        key="samples",
        chooses=[{"question": str(number)} for number in listed],
        height=565,
    )
    st.caption("Click a row to open the sample.")
with right:
    opened = int(
        choices.number(
            "Sample no.",
            0,
            2**31,
            asked if asked is not None else listed[0],
            "question",
            resets=OPENED[:1],
        )
    )
    if opened in numbers:
        place = numbers.index(opened)
        with st.container(horizontal=True):
            for label, icon, to in (
                ("Previous", "arrow_back", place - 1),
                ("Next", "arrow_forward", place + 1),
            ):
                if 0 <= to < len(numbers):
                    ui.link(
                        "samples", label, icon, **choices.made(page="", question=str(numbers[to]))
                    )
            st.caption(f"{place + 1:,} of {len(numbers):,}")
    else:
        st.caption("This sample is not one of those that match the filter.")
    answers = data.sample(snapshot, run, opened)
    if answers.empty:
        raise ui.Nothing("This run has no such sample.")
    other = data.sample(snapshot, others[against], opened) if against else None
    sample.show_sample(snapshot, run, answers, other, text.label(against))
