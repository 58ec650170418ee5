"""What pages share: the snapshot, choices in the URL, links, empty states, the footer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import pandas as pd
import streamlit as st

from cowest_bench.errors import ConfigError
from leaderboard import data, text
from leaderboard.data import Snapshot
from leaderboard.tables import Column

BIND: Literal["query-params"] = "query-params"
HALF = 480  # pixels: two such charts stand side by side, on a narrow screen one below the other


def empty(sentence: str, command: str = "") -> None:
    """End the page with what is missing and what to type; both are trusted texts."""
    st.info(sentence, icon=":material/info:")
    if command:
        st.code(command, language=None)
    footer()
    st.stop()


def find_snapshot() -> Snapshot | None:
    """The newest snapshot, if it can be read."""
    try:
        return data.board(data.location()).current()
    except ConfigError:
        return None


def snapshot() -> Snapshot:
    """The newest snapshot; ends the page if there is none."""
    try:
        found = data.board(data.location()).current()
    except ConfigError as error:
        st.html(f"<p>{text.escaped(error)}</p>")
        empty("The snapshot cannot be read. Write it again with:", "cowest publish")
    if found is None or not data.suites(found):
        empty(
            "Nothing has been published yet. Make results, then publish them:",
            "make demo\ncowest publish",
        )
    assert found is not None
    return found


def sidebar() -> None:
    """The suite, which all pages are about."""
    found = find_snapshot()
    if found is not None and (suites := data.suites(found)):
        with st.sidebar:
            if fictional(choose("Suite", suites, key="suite")):
                st.caption("Fictional facts, tiny models: says nothing about real ones.")


def fictional(name: str) -> bool:
    """Whether a suite is of the pocket world."""
    return name.startswith(("pocket", "cowest_pocket"))


def suite() -> str:
    """The suite that was chosen."""
    return str(st.session_state["suite"])


def footer() -> None:
    """Which snapshot this is, and whose results it holds."""
    found = find_snapshot()
    if found is None:
        return
    sources = found.query(
        "SELECT DISTINCT source FROM runs WHERE source IS NOT NULL ORDER BY source"
    )
    st.divider()
    st.html(
        text.markup(
            "<small style='opacity:.75'>snapshot {id} · published {published} · "
            "cowest-bench {version} · results: {sources}</small>",
            id=found.meta.get("id"),
            published=str(found.meta.get("published"))[:19].replace("T", " "),
            version=found.meta.get("cowest_bench"),
            sources=", ".join(sources["source"]),
        )
    )


# --- choices --------------------------------------------------------------------------------------


def choose(
    label: str, options: Sequence[str], *, key: str, default: str | None = None, **layout: Any
) -> str:
    """One of several untrusted names, kept in the URL under the key."""
    shown = [*dict.fromkeys(options)]
    if st.session_state.get(key, shown[0]) not in shown:
        del st.session_state[key]  # another suite or a new snapshot does not have it
    index = shown.index(default) if default in shown else 0
    return str(st.selectbox(label, shown, index=index, key=key, bind=BIND, **layout))


def unique(labels: Mapping[str, str]) -> dict[str, str]:
    """Entries by a unique name: the label, with the start of the id if two share it."""
    shown = {entry: text.label(label) for entry, label in labels.items()}
    times = Counter(shown.values())
    return {
        name if times[name] == 1 else f"{name} ({entry[:6]})": entry
        for entry, name in shown.items()
    }


def choose_entry(
    label: str, names: Mapping[str, str], *, key: str, default: str | None, **layout: Any
) -> str:
    """The id of one of the entries that ``unique`` names; ``default`` is an id."""
    preset = name_of(names, default)
    return names[choose(label, [*names], key=key, default=preset, **layout)]


def name_of(names: Mapping[str, str], entry: str | None) -> str | None:
    """The name under which an entry can be chosen."""
    return next((name for name, each in names.items() if each == entry), None)


def checkpoints(history: pd.DataFrame) -> dict[str, str]:
    """Run ids by a name of the checkpoint: its label, day and the start of its id; newest first."""
    return {
        f"{text.label(row.checkpoint)} · {str(row.created)[:10]} · {str(row.run_id)[:12]}": row.run_id
        for row in history.itertuples()
    }


def others(runs: pd.DataFrame, names: Mapping[str, str], history: pd.DataFrame) -> dict[str, str]:
    """Runs to compare with: those of other entries, and earlier ones of the same entry."""
    current = runs[runs["current"]]
    found = {name_of(names, row.entry): row.run_id for row in current.itertuples()}
    own = {} if len(history) < 2 else checkpoints(history)
    return {name: run for name, run in found.items() if name} | own


def trainings(found: pd.DataFrame) -> dict[str, str]:
    """Trainings by a name that says what they are; those of DPO first."""
    rows = found.sort_values("kind", kind="stable").itertuples()
    return {
        f"{row.kind} · {text.label(row.domain)} · {text.label(row.weak)}"
        + (f" + {text.label(row.strong)}" if isinstance(row.strong, str) else "")
        + f" · {text.label(row.training)}": row.training
        for row in rows
    }


def open_pairing(cells: pd.DataFrame, cell: Mapping[str, str], names: Mapping[str, str]) -> None:
    """Go to the comparison of a pairing with the better of its models, or with the strong one."""
    weak, strong = (
        next((v for v in cells[role].unique() if text.label(v) == cell.get(role)), None)
        for role in ("weak", "strong")
    )
    found = cells[(cells["weak"] == weak) & (cells["strong"] == strong)]
    if len(found):
        candidate = name_of(names, found.iloc[0]["entry"])
        baseline = name_of(names, data.better_alone(snapshot(), suite(), found.iloc[0]["entry"]))
        chosen = {"candidate": candidate, "baseline": baseline}
        st.switch_page(  # the suite stays: its widget is on every page
            "views/compare.py", query_params={k: v for k, v in chosen.items() if v is not None}
        )


def choose_margin() -> float:
    """A loss of score that does not matter."""
    return float(
        st.number_input(
            "Margin", 0.0, 1.0, 0.02, 0.01, key="margin", bind=BIND,
            help="A loss of score below it does not matter.",
        )
    )  # fmt: skip


def link(page: str, label: str, icon: str, **parameters: Any) -> None:
    """A link to another page with its choices made; the label is trusted text."""
    given = {name: str(value) for name, value in parameters.items() if value is not None}
    st.page_link(
        f"views/{page}.py",
        label=label,
        icon=f":material/{icon}:",
        query_params={"suite": suite(), **given},
    )


# --- tables ---------------------------------------------------------------------------------------


def table(
    frame: pd.DataFrame,
    listed: Sequence[Column],
    alt: str,
    *,
    key: str | None = None,
    chooses: tuple[str, Sequence[Any]] | None = None,
    **layout: Any,
) -> None:
    """Show one of ``tables``; ``alt`` describes it for those who cannot see it.

    With ``key`` and ``chooses`` (key of a choice, and its value for each row), a click makes a choice.
    """
    chosen: dict[str, Any] = {}
    if key and chooses:
        chosen = {"on_select": partial(_choose_row, key, *chooses), "selection_mode": "single-cell"}
    st.dataframe(
        frame,
        column_config=columns(listed),
        hide_index=True,
        key=key,
        placeholder=text.NONE,
        alt=alt,
        **chosen,
        **layout,
    )


def _choose_row(table: str, key: str, values: Sequence[Any]) -> None:
    """A session keeps its callbacks: one that lived on a page would keep the page's snapshot open."""
    if cells := st.session_state[table].selection.cells:
        st.session_state[key] = values[int(cells[0][0])]


def take_example(examples: Mapping[str, str]) -> None:
    """Make the example that was clicked the statement; not on its page, for the same reason."""
    if name := st.session_state["example"]:
        st.session_state["statement"] = examples[name]


def columns(listed: Sequence[Column]) -> dict[str, Any]:
    """How Streamlit shows the columns of a table."""
    return {column.title: _column(column) for column in listed}


def _column(column: Column) -> Any:
    if column.form in ("text", "interval"):
        return st.column_config.TextColumn(
            help=column.help or None,
            alignment="right" if column.form == "interval" else "left",
            width=column.width,
        )
    return st.column_config.NumberColumn(
        help=column.help or None, format=column.form, alignment="right", width=column.width
    )


def clean(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of untrusted values in which every text and every column name can be shown."""
    names = [text.label(name) for name in frame.columns]
    shown = frame.copy()
    shown.columns = pd.Index(
        [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names)]
    )
    for name in shown.columns:
        if not pd.api.types.is_numeric_dtype(shown[name]):
            shown[name] = [text.label(value, 300) for value in shown[name]]
    return shown
