"""Every page of the leaderboard as a picture, in light and dark, on a wide and on a narrow screen.

    cowest publish && python benchmarks/screenshots.py /tmp/pictures
    python benchmarks/screenshots.py /tmp/pictures --snapshot results/board.duckdb --page overview

Writes PAGE-THEME-WIDTH.png, as high as the page is, with all charts drawn. For looking at after each
change of a page or of a chart.
"""

from __future__ import annotations

from pathlib import Path

import click
from playwright.sync_api import Browser

from tests import browser as browsers
from tests.browser import PAGES

WIDTHS = (1440, 800, 390)
HEIGHT = "document.querySelector('[data-testid=stMainBlockContainer]').scrollHeight"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--snapshot",
    type=click.Path(path_type=Path, exists=True),
    default=Path("results/board.duckdb"),
    show_default=True,
)
@click.option("--page", "pages", type=click.Choice([*PAGES]), multiple=True, help="[default: all]")
@click.option("--suite", help="[default: the newest]")
def main(folder: Path, snapshot: Path, pages: tuple[str, ...], suite: str | None) -> None:
    """Write the pictures into FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = {"suite": suite} if suite else {}
    with browsers.serving(snapshot) as server, browsers.browsing() as browser:
        for dark in (False, True):
            for width in WIDTHS:
                picture(browser, server.url, folder, pages or (*PAGES,), chosen, dark, width)


def picture(
    browser: Browser,
    url: str,
    folder: Path,
    pages: tuple[str, ...],
    chosen: dict[str, str],
    dark: bool,
    width: int,
) -> None:
    """Write the pictures of one theme and width."""
    profile = browsers.new_profile(browser, width=width, dark=dark)
    with browsers.visiting(profile, url) as visitor:
        for name in pages:
            visitor.open(name, **chosen)
            height = int(visitor.page.evaluate(HEIGHT))
            visitor.page.set_viewport_size({"width": width, "height": max(700, height)})
            visitor.settled()
            path = folder / f"{name}-{'dark' if dark else 'light'}-{width}.png"
            visitor.page.screenshot(path=path)
            visitor.page.set_viewport_size({"width": width, "height": browsers.HEIGHT})
            click.echo(str(path))
    profile.close()


if __name__ == "__main__":
    main()
