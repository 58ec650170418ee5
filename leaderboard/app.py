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


def navigation() -> st.Page:
    """The page that the visitor asks for, in the order of the questions that people have."""

    def page(name: str, title: str, icon: str) -> st.Page:
        return st.Page(
            f"views/{name}.py",
            title=title,
            icon=f":material/{icon}:",
            url_path=name,
            default=name == "overview",
        )

    return st.navigation(
        {
            "Choose": [
                page("overview", "Overview", "leaderboard"),
                page("pairings", "Pairings", "grid_on"),
                page("compare", "Compare", "balance"),
            ],
            "See why": [
                page("samples", "Samples", "quiz"),
                page("regressions", "Regressions", "timeline"),
                page("training", "Training", "model_training"),
            ],
            "Check": [
                page("methods", "Methods", "function"),
                page("sql", "SQL", "database"),
            ],
        }
    )


import_package()
from leaderboard import ui

st.set_page_config(page_title="cowest-bench", page_icon="\N{SCALES}", layout="wide")
chosen = navigation()
ui.sidebar()
chosen.run()
ui.footer()
