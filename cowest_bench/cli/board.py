"""The leaderboard: ``cowest publish``, ``cowest board`` and ``cowest submit``."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import click

from cowest_bench.cli.shared import progress_bars, read_results, results_option
from cowest_bench.errors import ConfigError, printable

FOLDER = click.Path(path_type=Path, file_okay=False)

texts_option = click.option(
    "--texts/--no-texts",
    default=True,
    help="Keep questions, answers, drafts, prompts and error messages; or only numbers, for data "
    "that must not be published.",
)


@click.command()
@results_option
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The snapshot to write or replace.  [default: board.duckdb in the results folder]",
)
@texts_option
@click.option(
    "--baselines",
    type=FOLDER,
    metavar="DIR",
    help="Folder of the blessed baselines.  [default: baselines]",
)
@click.option(
    "--submitted",
    type=FOLDER,
    metavar="DIR",
    help="Folder of the committed reference results.  [default: submitted/ in the results folder]",
)
def publish(
    root: Path, target: Path | None, texts: bool, baselines: Path | None, submitted: Path | None
) -> None:
    """Write everything that the leaderboard shows into one read-only file, a snapshot.

    It contains all finished test runs, the trainings of their weak models, and the reference results.
    An open leaderboard switches to it without interruption. Runs that cannot be read are left out and
    listed.

    \b
    Examples:
      cowest publish
      cowest publish --no-texts --to /srv/board/board.duckdb
      cowest publish --results /tmp/world11 --baselines baselines
    """
    path = _publish(root, target, texts, baselines, submitted)
    click.echo(f"{path}\t{path.stat().st_size / 2**20:.1f} MiB")


def _publish(
    root: Path,
    target: Path | None = None,
    texts: bool = True,
    baselines: Path | None = None,
    submitted: Path | None = None,
) -> Path:
    from cowest_bench.board import snapshot

    results = read_results(root)
    blessed = baselines or Path("baselines")
    if baselines and not baselines.is_dir():
        raise ConfigError(f"There is no folder {baselines}; make one with cowest baseline bless.")
    with progress_bars() as bars:
        path = snapshot.publish(
            results,
            target or root / "board.duckdb",
            submitted=submitted or root / "submitted",
            baselines=blessed if blessed.is_dir() else None,
            texts=texts,
            command="cowest publish" + ("" if texts else " --no-texts"),
            progress=lambda what, done, total: bars(root.name, what, done, total),
        )
    for sentence in snapshot.notes(path):
        click.echo(f"Left out: {printable(sentence)}", err=True)
    return path


@click.command()
@results_option
@click.option(
    "--snapshot",
    "location",
    metavar="PATH|URL",
    help="Show this snapshot (a file or a URL) instead of publishing the results first.",
)
@click.option("--port", type=click.IntRange(1, 65535), default=8501, show_default=True)
def board(root: Path, location: str | None, port: int) -> None:
    """Publish the results and serve them on this machine, for a browser.

    To show newer results while it runs, type cowest publish in another terminal.

    \b
    Examples:
      cowest board
      cowest board --results /tmp/world11 --port 8600
      cowest board --snapshot https://example.org/board.duckdb
    """
    app = leaderboard_folder() / "app.py"
    if importlib.util.find_spec("streamlit") is None:
        raise ConfigError(
            "The leaderboard needs Streamlit, which is not installed; type: "
            "pip install 'cowest-bench[board]'."
        )
    if location is None:
        location = str(_publish(root).resolve())
    elif "://" not in location:
        if not Path(location).is_file():
            raise ConfigError(
                f"There is no snapshot {location}; make one with cowest publish --to FILE."
            )
        location = str(Path(location).resolve())
    click.echo(f"http://127.0.0.1:{port}  (Ctrl+C stops it)", err=True)
    sys.stdout.flush()
    package = str(Path(__file__).parent.parent.parent)
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "COWEST_BOARD": location, "PYTHONPATH": path}
    os.execve(sys.executable, streamlit_command(app, port), environment)


def leaderboard_folder() -> Path:
    """The app: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    for folder in (package / "_leaderboard", package.parent / "leaderboard"):
        if (folder / "app.py").is_file():
            return folder
    raise ConfigError(
        "The leaderboard's app is not installed; install cowest-bench from its wheel, or run cowest "
        "in a checkout."
    )


def streamlit_command(app: Path, port: int) -> list[str]:
    """Starts Streamlit, reachable from this machine only, without prompts and telemetry."""
    return [
        *(sys.executable, "-m", "streamlit", "run", str(app)),
        *("--server.address=127.0.0.1", f"--server.port={port}", "--server.headless=true"),
        *("--server.fileWatcherType=none", "--browser.gatherUsageStats=false"),
    ]


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@results_option
@click.option(
    "--to",
    "folder",
    type=FOLDER,
    default=Path("results/submitted"),
    show_default=True,
    metavar="DIR",
    help="Folder of the reference results, in git.",
)
@texts_option
def submit(runs: tuple[str, ...], root: Path, folder: Path, texts: bool) -> None:
    """Check finished test runs and add them to the reference results, for a pull request.

    RUN is as for cowest compare: the start of a run id, or quoted KEY=VALUE pairs. Local paths and
    logs are removed. The cards of trainings are added, and the scores (no texts) of the feedback that
    they used.

    \b
    Examples:
      cowest submit 3f2a 91bc
      cowest submit "system=collab" "system=collab-tuned" "system=strong" "system=weak"
      cowest submit "system=collab-tuned task=cowest_medmcqa" --no-texts

    \b
    Exit codes: 0 added; 2 no such runs, already added, or a check failed.
    """
    from cowest_bench.board import submission

    for path in submission.submit(read_results(root), runs, folder, keep_texts=texts):
        click.echo(f"{path}\t{path.stat().st_size:,} bytes")
    click.echo(
        f"Next: git add {folder}, commit it with the command that made the runs, and open a pull "
        "request; tests/board/test_submitted.py checks the folder.",
        err=True,
    )


COMMANDS: tuple[click.Command, ...] = (publish, board, submit)
