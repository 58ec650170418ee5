"""The leaderboard: pages over a published snapshot.

streamlit run leaderboard/app.py          reads results/board.duckdb, or what COWEST_BOARD names
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import streamlit as st


def import_package() -> None:
    """Make this folder the package ``leaderboard``, whatever it is called where it is installed."""
    if "leaderboard" in sys.modules:
        return
    here = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        "leaderboard", here / "__init__.py", submodule_search_locations=[str(here)]
    )
    assert spec and spec.loader
    sys.modules["leaderboard"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["leaderboard"])


def main() -> None:
    """Show the page that the visitor asks for."""
    pages = {
        page.name: st.Page(
            f"views/{page.name}.py",
            title=page.title,
            url_path=page.name,
            default=page.name == ui.PAGES[0].name,
        )
        for page in ui.PAGES
    }
    asked = st.navigation([*pages.values()], position="hidden")
    page = next(page for page in ui.PAGES if pages[page.name] is asked)
    st.set_page_config(
        page_title=f"{page.title} · cowest-bench", page_icon="\N{SCALES}", layout="wide"
    )
    st.html(Path(__file__).parent / "board.css")
    choices.begin(page.name)
    ui.sidebar()
    ui.heading(page)
    notices = st.container()
    ended = False
    try:
        asked.run()
    except ui.Nothing as nothing:
        ended = True
        st.info(nothing.sentence, icon=":material/info:")
        if nothing.command:
            st.code(nothing.command, language=None)
    for sentence in choices.missing():
        notices.html(f"<div class='notice' role='status'>{sentence}</div>")
    ui.footer(ended)


import_package()
from leaderboard import choices, ui

main()
