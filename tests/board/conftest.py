"""A server and a browser with one user's profile for each module, and someone who visits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import boards

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

    from tests.browser import Server, Visitor

REQUIRED = os.environ.get("COWEST_BROWSER") == "required"  # then nothing may be skipped


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser without a window."""
    if not REQUIRED:
        pytest.importorskip("playwright")
        pytest.importorskip("streamlit")
    from tests import browser as browsers

    if browsers.CHROMIUM is None:
        (pytest.fail if REQUIRED else pytest.skip)(
            "Chromium is not installed: apt install chromium"
        )
    with browsers.browsing() as browser:
        yield browser


@pytest.fixture(scope="module")
def profile(browser: Browser) -> BrowserContext:
    """Someone's, which fetches the app's own files only once."""
    from tests import browser as browsers

    return browsers.new_profile(browser)


@pytest.fixture(scope="module")
def pairings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The snapshot that most visitors see."""
    return boards.pairings(tmp_path_factory.mktemp("pairings"))


@pytest.fixture(scope="module")
def board(profile: BrowserContext, pairings: Path) -> Iterator[Server]:
    """A server whose first visitor follows a link, to a page that is not the first one."""
    from tests import browser as browsers

    with browsers.serving(pairings) as server:
        with browsers.visiting(profile, server.url) as visitor:
            visitor.open("samples", suite=boards.POCKET, show="hurt")
        yield server


@pytest.fixture
def visitor(profile: BrowserContext, board: Server, pairings: Path) -> Iterator[Visitor]:
    """Someone before the pairings' board; at the end there were no errors and no strange requests."""
    from tests import browser as browsers

    board.show(pairings)
    with browsers.visiting(profile, board.url) as visitor:
        yield visitor
