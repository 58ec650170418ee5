"""A real browser before the real leaderboard, on a machine whose browser finds no other machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    sync_playwright,
)

from cowest_bench.store import replaced
from leaderboard import ui
from tests.servers import free_port

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
SECONDS = 30.0  # that a page may take on a busy machine
HEIGHT = 2400  # pixels of a screen: tall, because what is below is not drawn
PAGES = {page.name: page.question for page in ui.PAGES}
"""Every page with its heading."""

BOXES = """() => [...document.querySelectorAll(
    '[role=combobox]:not([aria-multiselectable]), [role=spinbutton], input[type=number], input[type=text], textarea'
)].filter(box => box.checkVisibility()).map(box => [box.getAttribute('aria-label'), box.value])"""
"""Label and value of everything that is chosen from a list or typed."""

SETTLED = r"""() => {
    // True for a while, because a click takes a moment to reach the server and come back.
    const app = document.querySelector('[data-testid=stApp]');
    const charts = [...document.querySelectorAll('[data-testid=stVegaLiteChart]')].filter(
        chart => chart.checkVisibility());
    const now = app?.dataset.testScriptState === 'notRunning'
        && app.dataset.testConnectionState === 'CONNECTED'
        && !document.querySelector('[data-stale=true], [data-testid=stSkeleton]')
        && charts.every(chart => chart.querySelector('svg .mark-group'))
        && /snapshot [^\n]*$/.test(document.querySelector('[data-testid=stMain]')?.innerText.trimEnd());
    window.settledSince = now ? window.settledSince ?? performance.now() : undefined;
    return now && performance.now() - window.settledSince > 250;
}"""


@dataclass(frozen=True, slots=True)
class Server:
    """A leaderboard that is being served.

    Attributes:
        url: Where.
        pid: Of the process.
        snapshot: What it shows; may be replaced at any time.
        temporary: Its folder for temporary files.
    """

    url: str
    pid: int
    snapshot: Path
    temporary: Path

    def show(self, snapshot: Path) -> None:
        """Publish a copy of this snapshot."""
        with replaced(self.snapshot) as path:
            shutil.copyfile(snapshot, path)

    def open_files(self) -> list[str]:
        """What the process has open: files, sockets, pipes."""
        found = []
        for handle in Path(f"/proc/{self.pid}/fd").iterdir():
            try:
                found.append(str(handle.readlink()))
            except FileNotFoundError:  # closed meanwhile
                continue
        return found


@contextmanager
def serving(snapshot: Path) -> Iterator[Server]:
    """``cowest board`` with a copy of this snapshot, on a free port of this machine."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        shown, temporary = Path(folder) / "board.duckdb", Path(folder) / "tmp"
        temporary.mkdir()
        shutil.copyfile(snapshot, shown)
        command = [sys.executable, "-m", "cowest_bench", "board"]
        log = Path(folder) / "log"
        with (
            log.open("wb") as written,
            subprocess.Popen(
                [*command, "--snapshot", str(shown), "--port", str(port)],
                env={**os.environ, "TMPDIR": str(temporary), "NO_COLOR": "1"},
                stdout=written,
                stderr=written,
            ) as process,
        ):
            try:
                url = f"http://127.0.0.1:{port}"
                wait(process, f"{url}/_stcore/health")
                yield Server(url, process.pid, shown, temporary)
            finally:
                process.terminate()
                process.wait()
                print(log.read_text(errors="replace")[-8000:], file=sys.stderr)


def wait(process: subprocess.Popen[bytes], url: str) -> None:
    """Until a server answers at this address."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"no leaderboard at {url} (exit status {process.poll()})")


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS])
        yield browser
        browser.close()


def new_profile(browser: Browser, *, width: int = 1440, dark: bool = False) -> BrowserContext:
    """Someone with a screen of this width who has never been there: nothing stored, nothing cached."""
    profile = browser.new_context(
        viewport={"width": width, "height": HEIGHT}, color_scheme="dark" if dark else "light"
    )
    profile.set_default_timeout(SECONDS * 1000)
    return profile


class Visitor:
    """Someone with a browser of their own before a leaderboard.

    Attributes:
        page: The browser's page.
        troubles: What should not have happened: errors on the console, dialogs, requests to others.
        requests: Every address that was asked.
    """

    def __init__(self, profile: BrowserContext, url: str) -> None:
        """Open a tab; nothing has been asked for yet."""
        self.url = url
        self.troubles: list[str] = []
        self.requests: list[str] = []
        self.page: Page = profile.new_page()
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        self.page.on("websocket", lambda socket: self._asked(socket.url))
        self.page.on("dialog", lambda dialog: self._asked_in_a_dialog(dialog.message))

    def _asked(self, url: str) -> None:
        parts = urlsplit(url)
        self.requests.append(url)
        if parts.scheme in ("http", "https", "ws") and parts.netloc != urlsplit(self.url).netloc:
            self.troubles.append(f"request: {url}")

    def _asked_in_a_dialog(self, message: str) -> None:
        self.troubles.append(f"dialog: {message}")

    def _said(self, message: ConsoleMessage) -> None:
        place = urlsplit(str(message.location.get("url", ""))).path
        # At first Streamlit asks for these below the page's own address, which it takes for a folder.
        probe = place.endswith(("/_stcore/health", "/_stcore/host-config"))
        if message.type in ("error", "warning") and not probe:
            self.troubles.append(f"{message.type}: {message.text} ({place})")

    def open(self, name: str, **choices: object) -> None:
        """Follow a link to a page with these choices in its address."""
        query = "&".join(f"{key}={quote(str(value), safe='')}" for key, value in choices.items())
        path = "" if name == "overview" else name
        self.page.goto(f"{self.url}/{path}" + (f"?{query}" if query else ""))
        self.arrived(name)

    def go(self, name: str) -> None:
        """Click the name of a page in the navigation."""
        path = "" if name == "overview" else name
        self.page.locator(f"[data-testid=stSidebar] a[href^='{path}?'], [data-testid=stSidebar] a[href='{path}']").click()  # fmt: skip
        self.arrived(name)

    def arrived(self, name: str) -> None:
        """Wait until this page, all of it, is there."""
        heading = self.page.get_by_role("heading", name=PAGES[name], exact=True)
        heading.wait_for(timeout=SECONDS * 1000)
        self.settled()

    def settled(self) -> None:
        """Wait until the page is as the server left it, charts drawn, down to the footer."""
        self.page.evaluate("window.settledSince = undefined")
        self.page.wait_for_function(SETTLED)
        assert "snapshot " in self.text.splitlines()[-1], self.text[-2000:]

    def until(self, **choices: str | None) -> None:
        """Wait until the address says this (None: does not say it), and the page is settled."""
        end = time.monotonic() + SECONDS
        while not all(self.choices.get(key) == value for key, value in choices.items()):
            assert time.monotonic() < end, f"{self.page.url} does not say {choices}"
            self.page.wait_for_timeout(20)
        self.settled()

    def until_not(self, **choices: str) -> None:
        """Wait until the address says something else, and the page is settled."""
        end = time.monotonic() + SECONDS
        while any(self.choices.get(key) == value for key, value in choices.items()):
            assert time.monotonic() < end, f"{self.page.url} still says {choices}"
            self.page.wait_for_timeout(20)
        self.settled()

    @property
    def choices(self) -> dict[str, str]:
        """What the address says."""
        return self.parameters(self.page.url)

    @staticmethod
    def parameters(url: str) -> dict[str, str]:
        """What an address says."""
        return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))

    @property
    def path(self) -> str:
        """The page's place in the address."""
        return urlsplit(self.page.url).path.strip("/") or "overview"

    @property
    def text(self) -> str:
        """All text that can be seen, without the navigation."""
        return self.page.locator("[data-testid=stMain]").inner_text()

    def select(self, label: str, option: str) -> None:
        """Choose an option of the list with this label."""
        self.page.get_by_role("combobox", name=label, exact=True).click()
        self.page.get_by_role("option", name=option, exact=True).click()

    def other_option(self, label: str) -> str | None:
        """An option of the list with this label that is not chosen."""
        chosen = self.chosen(label)
        self.page.get_by_role("combobox", name=label, exact=True).click()
        self.page.get_by_role("option").first.wait_for()
        options = self.page.get_by_role("option").all_inner_texts()
        self.page.keyboard.press("Escape")
        return next((option for option in reversed(options) if option != chosen), None)

    def copy_link(self) -> str:
        """Click the button that copies the address; what it copied."""
        self.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.page.get_by_role("button", name="Copy link").click()
        self.page.get_by_role("button", name="Copied").wait_for()
        return str(self.page.evaluate("navigator.clipboard.readText()"))

    def chosen(self, label: str) -> str:
        """The option that is chosen in the list with this label."""
        return str(self.page.get_by_role("combobox", name=label, exact=True).input_value())

    def boxes(self) -> dict[str, str]:
        """What the boxes of the page and of the sidebar show, by their labels."""
        found = self.page.evaluate(BOXES)
        return {str(label): str(value) for label, value in found}

    def marks(self, kind: str) -> Locator:
        """Marks of charts, such as ``rect`` or ``symbol``."""
        return self.page.locator(f"[data-testid=stVegaLiteChart] svg .mark-{kind} > path")

    def click_row(self, row: int) -> None:
        """Click a row of the first table, counted from 0; its cells are painted on a canvas."""
        box = self.page.locator("[data-testid=stDataFrame] canvas").first.bounding_box()
        assert box is not None
        height = 35  # pixels, of the header too
        self.page.mouse.click(box["x"] + 120, box["y"] + height * (row + 1.5))

    def close(self) -> None:
        """Leave; nothing untoward may have happened."""
        self.page.close()
        assert not self.troubles, self.troubles


@contextmanager
def visiting(profile: BrowserContext, url: str) -> Iterator[Visitor]:
    """A visit that ends well only if nothing untoward happened."""
    visitor = Visitor(profile, url)
    try:
        yield visitor
    except BaseException:
        visitor.page.close()
        raise
    visitor.close()
