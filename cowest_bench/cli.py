"""The command line: parses, calls one function, prints. Results go to stdout, all else to stderr.

Heavy libraries are imported inside the commands, so that ``cowest --help`` answers at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cowest_bench import __version__
from cowest_bench.config import SYSTEMS
from cowest_bench.errors import ConfigError, CowestError, suggestion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cowest_bench.records import Results, Run

FORMATS = ("table", "json", "csv", "md")

results_option = click.option(
    "--results",
    "root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    metavar="DIR",
    help="Folder of runs, logs, models and the database.",
)
format_option = click.option(
    "--format", "form", type=click.Choice(FORMATS), default="table", show_default=True
)


class _Commands(click.Group):
    """Shows an error of ours as one sentence, with its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
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
    """


# --- demo -----------------------------------------------------------------------------------------


@main.command()
@click.option(
    "--seed", default=0, show_default=True, help="World to draw; anyone can draw a new one."
)
@click.option(
    "--controls", is_flag=True, help="Also shuffle drafts, pair at random, imitate the best."
)
@click.option(
    "--domain",
    "domains",
    multiple=True,
    type=click.Choice(("medical", "counterfactual", "ethics")),
    help="Only this domain; can be given several times.",
)
@results_option
@format_option
def demo(seed: int, controls: bool, domains: tuple[str, ...], root: Path, form: str) -> None:
    """Run the whole method on the embedded pocket world: no download, no key, no GPU.

    A weak model is specialised, drafts for a strong one, and is tuned by what its drafts changed.
    What is finished is kept: an interrupted demo goes on where it was, a second one answers at once.

    \b
    Examples:
      cowest demo
      cowest demo --seed 11 --results /tmp/world11 --format json
      cowest demo --controls
    """
    results = _results(root)
    from cowest_bench.pocket import demo as pocket

    with _progress() as progress:
        runs = pocket.demo(
            seed,
            results,
            controls=pocket.CONTROLS if controls else (),
            domains=domains or pocket.DOMAINS,
            progress=progress,
        )
    _rebuild(results)
    _show(results, runs, form, {"seed": seed})
    if form == "table":
        click.echo("Next: cowest results                       every run that is stored")
        click.echo(f"      inspect view --log-dir {results.logs}    every prompt and answer")


# --- run ------------------------------------------------------------------------------------------


@main.command()
@click.option(
    "--tasks", "names", required=True, metavar="NAME[,NAME...]", help="See: cowest tasks list."
)
@click.option(
    "--weak", metavar="MODEL", help="Folder, hf/ORG/NAME, or a name as Inspect writes it."
)
@click.option("--weak-adapter", metavar="DIR", help="LoRA adapter on top of a local weak model.")
@click.option("--strong", metavar="MODEL", help="Likewise; may be a black box behind an API.")
@click.option(
    "--systems",
    default="weak,strong,collab",
    show_default=True,
    metavar="NAME[,NAME...]",
    help=f"Of: {', '.join(SYSTEMS)}.",
)
@click.option("--split", type=click.Choice(("train", "feedback", "dev", "test")), default="test")
@click.option(
    "--epochs", type=click.IntRange(1), default=1, show_default=True, help="Drafts per question."
)
@click.option("--seed", default=0, show_default=True, help="Of the drafts' sampling.")
@click.option(
    "--set", "options", multiple=True, metavar="KEY=VALUE", help="Passed on to the tasks."
)
@click.option(
    "--dtype", default="auto", show_default=True, help="Of local models, such as float32."
)
@results_option
@format_option
def run(
    names: str,
    weak: str | None,
    weak_adapter: str | None,
    strong: str | None,
    systems: str,
    split: str,
    epochs: int,
    seed: int,
    options: tuple[str, ...],
    dtype: str,
    root: Path,
    form: str,
) -> None:
    """Evaluate systems on tasks; what has been run before is not run again.

    \b
    Examples:
      cowest run --tasks cowest_pocket_medical --weak DIR --strong DIR
      cowest run --tasks cowest_pocket_ethics --weak DIR --systems weak --split dev --set seed=3
    """
    from cowest_bench.config import ModelSpec

    results = _results(root)
    wanted = [name.strip() for name in systems.split(",")]
    for name in wanted:
        if name not in SYSTEMS:
            raise ConfigError(f"There is no system {name}; {suggestion(name, SYSTEMS)}")
    weak_model = ModelSpec(name=weak, adapter=weak_adapter, dtype=dtype) if weak else None
    strong_model = ModelSpec(name=strong, dtype=dtype) if strong else None
    from cowest_bench.evaluate import evaluate
    from cowest_bench.tasks import load_task

    tasks = [load_task(n.strip(), split, **_options(options)) for n in names.split(",")]  # type: ignore[arg-type]
    with _progress() as progress:
        runs = [
            evaluate(
                task,
                system,
                results=results,
                seed=seed,
                epochs=epochs,
                progress=_for_task(progress, task.meta.domain or task.name),
                weak=weak_model,
                strong=strong_model,
            )
            for task in tasks
            for system in wanted
        ]
    _rebuild(results)
    _show(results, runs, form, {"seed": seed})


def _for_task(
    progress: Callable[[str, str, int, int], None], domain: str
) -> Callable[[str, int, int], None]:
    return lambda what, done, total: progress(domain, what, done, total)


def _options(pairs: tuple[str, ...]) -> dict[str, Any]:
    """``KEY=VALUE`` arguments, with numbers read as numbers."""
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {pair} is not of the form KEY=VALUE, such as --set seed=3.")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return options


# --- lm-eval --------------------------------------------------------------------------------------


@main.command(
    "lm-eval",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def lm_eval(arguments: tuple[str, ...]) -> None:
    """Run lm-eval's own command, in which a pairing is the model "cowest".

    All arguments are lm-eval's: cowest lm-eval run --help lists them.

    \b
    Examples:
      cowest lm-eval run --model cowest --model_args weak=DIR,strong=openai-api/x/y,seed=0 \\
        --tasks gsm8k --apply_chat_template
      cowest lm-eval run --model cowest --model_args system=strong,strong=DIR --tasks gsm8k
    """
    from cowest_bench import lm_eval_model

    lm_eval_model.main(list(arguments))


# --- tasks ----------------------------------------------------------------------------------------


@main.group()
def tasks() -> None:
    """List the tasks, and check that their gold answers score 1.0."""


@tasks.command("list")
def list_command() -> None:
    """The names of all tasks, with their files."""
    from cowest_bench.tasks import list_tasks

    for name, path in list_tasks().items():
        click.echo(f"{name}\t{path}")


@tasks.command()
@click.argument("names", nargs=-1)
@click.option(
    "--set", "options", multiple=True, metavar="KEY=VALUE", help="Passed on to the tasks."
)
def validate(names: tuple[str, ...], options: tuple[str, ...]) -> None:
    """Score every gold answer of every split: a task is sound if all of them score 1.0.

    \b
    Examples:
      cowest tasks validate
      cowest tasks validate cowest_pocket_ethics --set seed=5
    """
    from cowest_bench.tasks import list_tasks, load_task, validate_task

    wrong = 0
    for name in names or tuple(list_tasks()):
        for split, (right, total) in validate_task(load_task(name, **_options(options))).items():
            click.echo(f"{name}\t{split}\t{right}/{total} gold answers score 1.0")
            wrong += total - right
    if wrong:
        raise ConfigError(f"{wrong} gold answers do not score 1.0; mend the task's files.")


# --- results --------------------------------------------------------------------------------------


@main.command()
@results_option
@format_option
def results(root: Path, form: str) -> None:
    """The test runs that are stored, with what collaboration gained.

    \b
    Examples:
      cowest results
      cowest results --results /tmp/world11 --format csv
    """
    from cowest_bench.records import Results

    stored = Results(root)
    runs = [run for run in stored.all_runs() if run.split == "test"] if root.is_dir() else []
    if not runs:
        raise ConfigError(
            f"There are no results in {root}; make some with cowest demo or cowest run."
        )
    _rebuild(stored)
    _show(stored, runs, form, {})


# --- shared ---------------------------------------------------------------------------------------


def _results(root: Path) -> Results:
    from cowest_bench.records import Results

    results = Results(root)
    results.prepare()
    return results


def _rebuild(results: Results) -> None:
    from cowest_bench import store

    store.rebuild(results)


def _show(results: Results, runs: list[Run], form: str, about: Mapping[str, Any]) -> None:
    from rich.console import Console

    from cowest_bench import report

    summary = report.summarise(results, runs)
    if form == "json":
        click.echo(json.dumps({**about, **summary}, indent=1))
    elif form == "csv":
        click.echo(report.as_csv(summary))
    elif form == "md":
        click.echo(report.as_markdown(summary))
    else:
        console = Console(width=None if sys.stdout.isatty() else 200)
        console.print(report.as_table(summary))
        for line in report.seconds_line(summary):
            click.echo(line)


@contextmanager
def _progress() -> Iterator[Callable[[str, str, int, int], None]]:
    """A bar for each domain on standard error; lines where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        last: dict[str, str] = {}

        def tell(domain: str, what: str, done: int, total: int) -> None:
            if last.get(domain) != what:
                last[domain] = what
                click.echo(f"{domain}: {what} ({total})", err=True)

        yield tell
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as bars:
        known: dict[str, Any] = {}

        def show(domain: str, what: str, done: int, total: int) -> None:
            if domain not in known:
                known[domain] = bars.add_task(domain)
            text = f"{domain:>14} · {what:<22}"
            bars.update(known[domain], description=text, completed=done, total=total)

        yield show
