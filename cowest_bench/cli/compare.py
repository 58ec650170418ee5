"""Read: ``cowest results``, ``cowest compare``, ``cowest check`` and ``cowest baseline``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from traceback import print_exc
from typing import Any

import click

from cowest_bench.cli import shared
from cowest_bench.errors import ComparisonError, ConfigError, CowestError


@click.command("results")
@click.argument("runs", required=False)
@shared.results_option
@shared.format_option
def results_command(runs: str | None, root: Path, form: str) -> None:
    """Show stored test runs and what each collaboration gains over its models alone.

    RUNS selects some of them, as for cowest compare; @all shows every checkpoint. Without it, every
    test run is shown. The database of the results folder is made again.

    \b
    Examples:
      cowest results
      cowest results "system=collab @all"
      cowest results --results /tmp/world11 --format csv
    """
    from cowest_bench.store.selection import select_all

    stored = shared.read_results(root)
    found = stored.all_runs()
    if runs:
        chosen = select_all(found, runs, stored.damaged)
    else:
        chosen = [run for run in found if run.split == "test"]
    if not chosen:
        nothing = f"There are no test runs in {root}; make some with cowest demo or cowest run."
        raise ConfigError(nothing if found else " ".join(stored.damaged) or nothing)
    shared.rebuild(stored)
    shared.show(stored, chosen, form, {})


@click.command("compare")
@click.argument("a")
@click.argument("b")
@shared.margin_option
@shared.alpha_option
@shared.results_option
@shared.format_option
def compare_command(a: str, b: str, margin: float, alpha: float, root: Path, form: str) -> None:
    """Compare run A with run B, sample by sample: verdicts, the 2x2 table, cost, detectable differences.

    A and B are each the start of a run's id, or quoted KEY=VALUE pairs that mean one run of each data
    set. The keys are task, domain, split (test, unless given), system, weak, strong, control (none,
    unless given), format and seed. The pairs mean the newest run of an entry (a system with its
    models, format and control); with @previous, the one before it. Runs of several entries on the
    same data are ambiguous, and are listed.

    \b
    Examples:
      cowest compare 3f2a 91bc
      cowest compare "system=collab-tuned" "system=collab" --margin 0.03
      cowest compare "system=collab weak=mine" "system=collab weak=mine @previous"
      cowest compare "weak=mine system=collab domain=medical" "system=strong" --format md

    \b
    Exit codes: 0 compared, 2 no such runs, 4 the runs have no sample in common or cannot be read.
    """
    from cowest_bench.report.comparison import compare_report
    from cowest_bench.store.comparison import compare_runs

    found = compare_runs(shared.read_results(root), a, b, margin=margin, alpha=alpha)
    shared.warn(found.warnings)
    compare_report(found).print(form)


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
@shared.margin_option
@shared.alpha_option
@click.option(
    "--min-coverage",
    type=click.FloatRange(0, 1),
    default=0.98,
    help="Share of the baseline's scored samples that need a score now; below it: exit code 4.",
)
@click.option("--max-age", type=click.IntRange(0), default=90, help="Days until a warning.")
@click.option(
    "--critical",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="Ids or keys of samples that may not become wrong, one per line.",
)
@click.option("--sequential", is_flag=True, help="Stop at the first of five looks that decides.")
@click.option(
    "--inconclusive",
    type=click.Choice(("report", "pass", "fail")),
    default="report",
    help="Exit code when inconclusive: 3 (report), 0 or 1.",
)
@_report_option("markdown")
@_report_option("junit")
@_report_option("json")
@click.option(
    "--format", "form", type=click.Choice(("table", "md", "junit", "json")), default="table"
)
@shared.baselines_option
@shared.results_option
def check_command(
    candidate: str,
    baseline: str,
    critical: Any,
    max_age: int,
    form: str,
    folder: Path,
    root: Path,
    **given: Any,
) -> None:
    """Check that a run is no worse than a baseline; the exit code is the result.

    RUN and the baseline are selected as for cowest compare.

    \b
    Examples:
      cowest check --candidate "system=collab-tuned" --baseline main --margin 0.02
      cowest check --candidate 3f2a --critical critical.txt --junit report.xml
      cowest check --candidate 3f2a --baseline 91bc --sequential --inconclusive pass

    \b
    Exit codes:
      0  improved, equivalent or non-inferior
      1  regressed: the score, or a critical sample
      2  the command is invalid, or there is no such run or baseline
      3  inconclusive: more samples are needed (see --inconclusive)
      4  could not be checked: other data, too few scores, unreadable files
    """
    try:
        from cowest_bench.gate.check import Settings, check_runs
        from cowest_bench.report.comparison import check_report

        files = {name: given.pop(name) for name in ("markdown", "junit", "json")}
        found = check_runs(
            shared.read_results(root),
            candidate,
            baseline,
            Settings(**given),
            folder=folder,
            critical=critical.read() if critical else "",
            max_age=max_age,
        )
        report = check_report(found)
        for name, path in files.items():
            if path:
                _write(path, report.text("md" if name == "markdown" else name))
        shared.warn(found.warnings)
        report.print(form)
    except (CowestError, click.ClickException):
        raise
    except (Exception, KeyboardInterrupt) as error:
        # Python itself exits with 1, which here would mean that the model regressed.
        print_exc()
        raise ComparisonError(f"The check could not be made: {error!r}.") from error
    click.get_current_context().exit(found.exit_code)


def _write(path: Path, text: str) -> None:
    from cowest_bench.store import replaced

    try:
        with replaced(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The report {path} cannot be written: {error.strerror}.") from error


@click.group("baseline")
def baseline_command() -> None:
    """Store the scores of chosen runs, to check new runs against.

    \b
    Examples:
      cowest baseline bless "system=collab-tuned" --name main
      cowest baseline list
    """


@baseline_command.command("bless")
@click.argument("run")
@click.option("--name", default="main", show_default=True, help="Replaces the one of this name.")
@shared.baselines_option
@shared.results_option
def bless_command(run: str, name: str, folder: Path, root: Path) -> None:
    """Write the scores of a run (or of one for each data set) to a small JSON for git.

    RUN is selected as for cowest compare.

    \b
    Examples:
      cowest baseline bless 3f2a --name main
      cowest baseline bless "weak=mine system=collab-tuned" --name mine
    """
    from cowest_bench.gate import baseline as baselines
    from cowest_bench.store.selection import select

    stored = shared.read_results(root)
    found = stored.all_runs()
    runs = [baselines.scored(stored, each) for each in select(found, run, stored.damaged)]
    path = baselines.bless(name, runs, folder)
    shared.warn(stored.damaged)
    for each in runs:
        size = f"{len(each.scores)} samples\t{each.coverage:.1%} scored"
        click.echo(f"{path}\t{each.domain}\t{each.run_id}\t{size}")


@baseline_command.command("list")
@shared.baselines_option
def list_command(folder: Path) -> None:
    """List the blessed baselines with their age and their runs."""
    from cowest_bench.gate import baseline as baselines

    for path in sorted(folder.glob("*.json")):
        found = baselines.load(path)
        for each in found.runs:
            click.echo(
                f"{found.name}\t{found.age} days\t{each.domain}\t{each.system}\t{each.run_id}"
            )


COMMANDS: tuple[click.Command, ...] = (
    results_command,
    compare_command,
    check_command,
    baseline_command,
)
