"""Read: ``cowest results``, ``cowest compare``, ``cowest check`` and ``cowest baseline``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from cowest_bench.cli.shared import (
    alpha_option,
    baselines_option,
    console,
    format_option,
    margin_option,
    read_results,
    rebuild,
    results_option,
    show,
)
from cowest_bench.errors import ComparisonError, ConfigError, CowestError, printable


@click.command()
@results_option
@format_option
def results(root: Path, form: str) -> None:
    """The test runs that are stored, with what collaboration gained.

    \b
    Examples:
      cowest results
      cowest results --results /tmp/world11 --format csv
    """
    stored = read_results(root)
    runs = [run for run in stored.all_runs() if run.split == "test"]
    if not runs:
        raise ConfigError(
            f"There are no results in {root}; make some with cowest demo or cowest run."
        )
    rebuild(stored)
    show(stored, runs, form, {})


@click.command()
@click.argument("a")
@click.argument("b")
@margin_option
@alpha_option
@results_option
@format_option
def compare(a: str, b: str, margin: float, alpha: float, root: Path, form: str) -> None:
    """Compare run A with run B, question by question: verdicts, 2x2, cost, what could be found.

    A and B are starts of run ids, or quoted KEY=VALUE pairs that mean one run for each data set:
    task, domain, split (test, unless named), system, weak, strong, control (none, unless named),
    format and seed.

    \b
    Examples:
      cowest compare 3f2a 91bc
      cowest compare "system=collab-tuned" "system=collab" --margin 0.03
      cowest compare "weak=mine system=collab domain=medical" "system=strong" --format md

    \b
    Exit codes: 0 compared, 2 no such runs, 4 the runs have no question in common.
    """
    from cowest_bench.report import comparison as compare_report
    from cowest_bench.report import results as report
    from cowest_bench.store.selection import compare_runs

    found = compare_runs(read_results(root), a, b, margin=margin, alpha=alpha)
    if form == "json":
        click.echo(json.dumps(compare_report.compared_json(found), indent=1))
    elif form == "csv":
        click.echo(report.csv_table(compare_report.compared_csv_rows(found)))
    elif form == "md":
        click.echo(compare_report.compared_markdown(found))
    else:
        console().print(report.text_table(compare_report.verdict_rows(found.comparison)))
        console().print(report.text_table(compare_report.run_rows(found)))
        for line in compare_report.left_out(found, printable):
            click.echo(line)


def _report_option(name: str) -> Callable[[Any], Any]:
    return click.option(
        f"--{name}",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help=f"Also write the report as {name}.",
    )


@click.command("check", context_settings={"show_default": True})
@click.option("--candidate", required=True, metavar="RUN", help="As for cowest compare.")
@click.option("--baseline", default="main", metavar="NAME", help="A blessed one, its file, or RUN.")
@margin_option
@alpha_option
@click.option(
    "--min-coverage",
    type=click.FloatRange(0, 1),
    default=0.98,
    help="Share of the baseline's scored questions that need a score now; below it: exit code 4.",
)
@click.option("--max-age", type=click.IntRange(0), default=90, help="Days until a warning.")
@click.option(
    "--critical",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="Sample ids or keys of questions that may not become wrong, one on each line.",
)
@click.option("--sequential", is_flag=True, help="Stop at the first of five looks that decides.")
@click.option(
    "--inconclusive",
    type=click.Choice(("report", "pass", "fail")),
    default="report",
    help="Exit code when inconclusive: 3, 0 or 1.",
)
@_report_option("markdown")
@_report_option("junit")
@_report_option("json")
@click.option(
    "--format", "form", type=click.Choice(("table", "md", "junit", "json")), default="table"
)
@baselines_option
@results_option
def gate(
    candidate: str,
    baseline: str,
    critical: Any,
    max_age: int,
    form: str,
    folder: Path,
    root: Path,
    markdown: Path | None,
    junit: Path | None,
    **given: Any,
) -> None:
    """Check that a run is no worse than a baseline, by exit code.

    \b
    Examples:
      cowest check --candidate "system=collab-tuned" --baseline main --margin 0.02
      cowest check --candidate 3f2a --critical critical.txt --junit report.xml
      cowest check --candidate 3f2a --baseline 91bc --sequential --inconclusive pass

    \b
    Exit codes:
      0  improved, equivalent or non-inferior
      1  regressed: the score, or a critical question
      2  the command cannot be understood, or there is no such run or baseline
      3  inconclusive: more questions are needed (see --inconclusive)
      4  could not be checked: other data, too few scores, unreadable files
    """
    with _crashes_are_4():
        from cowest_bench.gate import check as gates
        from cowest_bench.report import comparison as compare_report
        from cowest_bench.report import results as report

        as_json = given.pop("json")
        found = gates.gate(
            read_results(root),
            candidate,
            baseline,
            gates.Settings(**given),
            folder=folder,
            critical=critical.read() if critical else "",
            max_age=max_age,
        )
        texts = compare_report.check_texts(found)
        for path, kind in ((markdown, "md"), (junit, "junit"), (as_json, "json")):
            if path:
                _write(path, texts[kind])
        for line in found.warnings:
            click.echo(f"Warning: {printable(line)}", err=True)
        if form in texts:
            click.echo(texts[form])
        else:
            console().print(report.text_table(compare_report.verdict_rows(found.check.comparison)))
            for line in (*compare_report.check_lines(found), compare_report.headline(found)):
                click.echo(printable(line))
    click.get_current_context().exit(found.check.exit_code)


@contextmanager
def _crashes_are_4() -> Iterator[None]:
    """Python exits with 1 when it crashes, which here would say that the model regressed."""
    try:
        yield
    except (CowestError, click.ClickException):
        raise
    except (Exception, KeyboardInterrupt) as error:
        from traceback import print_exc

        print_exc()
        raise ComparisonError(f"The check could not be made: {error!r}.") from error


def _write(path: Path, text: str) -> None:
    from cowest_bench.store import replaced

    try:
        with replaced(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The report {path} cannot be written: {error.strerror}.") from error


@click.group()
def baseline() -> None:
    """Keep the scores of chosen runs, to check new ones against.

    \b
    Examples:
      cowest baseline bless "system=collab-tuned" --name main
      cowest baseline list
    """


@baseline.command()
@click.argument("run")
@click.option("--name", default="main", show_default=True, help="Replaces the one of this name.")
@baselines_option
@results_option
def bless(run: str, name: str, folder: Path, root: Path) -> None:
    """Write the scores of a run (or of one for each data set) to a small JSON for git.

    \b
    Examples:
      cowest baseline bless 3f2a --name main
      cowest baseline bless "weak=mine system=collab-tuned" --name mine
    """
    from cowest_bench.gate import baseline as baselines
    from cowest_bench.store.selection import select

    stored = read_results(root)
    runs = [baselines.scored(stored, each) for each in select(stored.all_runs(), run)]
    path = baselines.bless(name, runs, folder)
    for each in runs:
        size = f"{len(each.scores)} questions\t{each.coverage:.1%} scored"
        click.echo(f"{path}\t{each.domain}\t{each.run_id}\t{size}")


@baseline.command("list")
@baselines_option
def list_baselines(folder: Path) -> None:
    """The blessed baselines, with their age and their runs."""
    from cowest_bench.gate import baseline as baselines

    for path in sorted(folder.glob("*.json")):
        found = baselines.load(path)
        for each in found.runs:
            click.echo(
                f"{found.name}\t{found.age} days\t{each.domain}\t{each.system}\t{each.run_id}"
            )


COMMANDS: tuple[click.Command, ...] = (results, compare, gate, baseline)
