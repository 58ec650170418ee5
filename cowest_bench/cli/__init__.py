"""The command line: parses, calls one function, prints. Results go to stdout, all else to stderr.

Heavy libraries are imported inside the commands, so that ``cowest --help`` answers at once.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from cowest_bench import __version__
from cowest_bench.cli import board, compare, run, sweep, tasks
from cowest_bench.errors import CowestError, Interrupted


class _ToldToEnd(KeyboardInterrupt):
    """Raised wherever the process is when Ctrl-C or SIGTERM comes; its argument is the signal."""


@contextmanager
def _told_to_end() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C."""

    def end(number: int, frame: object) -> None:
        raise _ToldToEnd(number)

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, end) for number in signals}
    try:
        yield
    except _ToldToEnd as told:
        error = Interrupted.by(told.args[0])
        error.args = (f"{error} The same command continues with what is not finished.",)
        raise error from None
    finally:
        for number in signals:
            signal.signal(number, before[number])


class _Commands(click.Group):
    """Shows an error of ours as one sentence, with its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _told_to_end():
                return super().invoke(ctx)
        except CowestError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cowest")
def main() -> None:
    """Evaluate weak-strong collaboration: a small model drafts, a large one refines.

    \b
    Examples:
      cowest demo                                 the whole method on the embedded world
      cowest tasks list                           what can be evaluated
      cowest run --tasks cowest_pocket_medical --weak DIR --strong DIR --set seed=3
      cowest results --format md                  every finished run
      cowest compare "system=collab" "system=strong"
      cowest check --candidate "system=collab-tuned" --baseline main
      cowest board                                browse and compare in the browser
    """


for module in (run, sweep, tasks, compare, board):
    for command in module.COMMANDS:
        main.add_command(command)
