"""The command line: parses, calls one function, prints. Results go to stdout, all else to stderr.

Heavy libraries are imported inside the commands, so that ``cowest --help`` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cowest_bench import __version__
from cowest_bench.config import SYSTEMS
from cowest_bench.errors import ComparisonError, ConfigError, CowestError, TaskError, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from cowest_bench.plan import Estimate, Plan
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
      cowest compare "system=collab" "system=strong"
      cowest check --candidate "system=collab-tuned" --baseline main
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


def _price(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    """``INPUT,OUTPUT`` as a price."""
    from cowest_bench.config import Price

    if value is None:
        return None
    try:
        tokens_in, tokens_out = map(float, value.split(","))
    except ValueError as error:
        raise click.BadParameter(
            f"{value} is not of the form INPUT,OUTPUT, such as 2.5,10"
        ) from error
    return Price(input=tokens_in, output=tokens_out)


def _role_options(role: str, help: str) -> Callable[[Any], Any]:
    """What describes the model in a role: its name, adapter, revision, dtype and price."""
    options = (
        click.option(f"--{role}", metavar="MODEL", help=help),
        click.option(f"--{role}-adapter", metavar="DIR", help="LoRA adapter on top of it."),
        click.option(
            f"--{role}-revision", metavar="NAME", help="Branch, tag or commit on the hub."
        ),
        click.option(
            f"--{role}-dtype", metavar="DTYPE", help="Such as float32; by default its own."
        ),
        click.option(f"--{role}-remote-code", is_flag=True, help="Run code that comes with it."),
        click.option(
            f"--{role}-price",
            metavar="IN,OUT",
            callback=_price,
            help="US dollars per million tokens.",
        ),
    )

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Folder of the data sets' files, instead of the hub.",
)
set_option = click.option(
    "--set", "options", multiple=True, metavar="KEY=VALUE", help="Passed on to the tasks."
)


@main.command(context_settings={"show_default": True})
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--tasks", metavar="NAME[,NAME...]", help="Tasks or groups; see: cowest tasks list.")
@_role_options("weak", "Folder, hf/ORG/NAME, vllm/NAME, or a name as Inspect writes it.")
@_role_options("strong", "Likewise; may be a black box behind an API.")
@_role_options("evaluator", "Judges answers, if the method's signal is evaluator.")
@click.option("--systems", metavar="NAME[,NAME...]", help=f"Of: {', '.join(SYSTEMS)}.")
@click.option("--split", type=click.Choice(("train", "feedback", "dev", "test")))
@click.option("--interaction", type=click.Choice(("direct", "knowledge", "cot")), help="The draft.")
@click.option("--epochs", type=click.IntRange(1), help="Drafts per question.")
@click.option("--seed", type=int, help="Of the drafts' sampling, and of training.")
@click.option("--limit", type=click.IntRange(1), help="Only the first questions of each split.")
@click.option("--num-fewshot", type=click.IntRange(0), help="Examples before each question.")
@data_option
@set_option
@click.option("--tune", is_flag=True, help="Specialise and tune the weak model (the method).")
@click.option("--budget", metavar="LIMIT", help="Stop before passing it: 20usd or 500calls.")
@click.option("--dry-run", is_flag=True, help="Print what it would take, and ask nobody.")
@click.option("--rate", type=float, default=5.0, help="Calls a second, for the dry run's time.")
@results_option
@format_option
def run(
    file: Path | None,
    tasks: str | None,
    systems: str | None,
    interaction: str | None,
    limit: int | None,
    num_fewshot: int | None,
    data: Path | None,
    options: tuple[str, ...],
    tune: bool,
    dry_run: bool,
    rate: float,
    root: Path,
    form: str,
    **given: Any,
) -> None:
    """Evaluate systems on tasks, from a plan (a YAML file), options, or both.

    What has been run before is not run again; of a run that ended with errors, only the questions
    without a score are asked. Options have the last word over the plan.

    \b
    Examples:
      cowest run --tasks cowest_pocket_medical --weak DIR --strong DIR
      cowest run --tasks gsm8k --weak hf/ORG/NAME --strong openai/gpt-4o --strong-price 2.5,10
      cowest run examples/paper.yaml --dry-run
      cowest run examples/local.yaml --limit 100 --budget 500calls
    """
    if dry_run:  # before any library reads it: a plan is made without network
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    from cowest_bench import plan as plans
    from cowest_bench.records import Results

    passed = {"data": str(data) if data else None, "limit": limit, "num_fewshot": num_fewshot}
    changes = {
        "tasks": _names(tasks),
        "systems": _names(systems),
        "format": interaction,
        "options": passed | _options(options),
        "method": {} if tune else None,
        **{key: given[key] for key in ("split", "epochs", "seed", "budget")},
        **{role: _model(role, given) for role in ("weak", "strong", "evaluator")},
    }
    plan = plans.Plan.load(file, changes)
    if dry_run:
        _show_estimate(plan, plans.estimate(plan, Results(root)), rate, form)
        return
    results = _results(root)
    with _progress() as progress:
        runs = list(plans.run(plan, results, lambda domain: partial(progress, domain)))
    _rebuild(results)
    _show(results, runs, form, {"seed": plan.seed})


def _names(text: str | None) -> list[str] | None:
    return [name.strip() for name in text.split(",")] if text else None


def _model(role: str, given: Mapping[str, Any]) -> dict[str, Any] | str | None:
    """What the options say of the model in a role; a name alone replaces the plan's model."""
    keys = ("adapter", "revision", "dtype", "price", "remote_code")
    said = {key: given[f"{role}_{key}"] for key in keys if given[f"{role}_{key}"]}
    name: str | None = given[role]
    return {"name": name, **said} if name else said or None


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


# --- models ---------------------------------------------------------------------------------------


@main.group()
def models() -> None:
    """Try a model before a run."""


@models.command()
@click.argument("name")
@click.option("--adapter", metavar="DIR", help="LoRA adapter on top of it.")
@click.option("--revision", metavar="NAME", help="Branch, tag or commit on the hub.")
@click.option("--dtype", default="auto", show_default=True, help="Of a local model.")
@click.option("--remote-code", is_flag=True, help="Run code that comes with a local model.")
@click.option("--price", metavar="IN,OUT", callback=_price, help="US dollars per million tokens.")
@click.option("--question", default="What is the capital of France?", show_default=True)
def check(name: str, question: str, **given: Any) -> None:
    """Load a model, have it answer one question, and say what that took.

    \b
    Examples:
      cowest models check hf/meta-llama/Meta-Llama-3-8B-Instruct --dtype bfloat16
      cowest models check openai-api/local/NAME --price 0.1,0.3
    """
    from cowest_bench import spending
    from cowest_bench.config import ModelSpec
    from cowest_bench.models import identity, try_model

    spec = ModelSpec(name=name, **given)
    output = try_model(spec, question)
    tokens_in, tokens_out = spending.tokens(output.usage)
    click.echo(f"model        {spec.name}")
    for key, value in identity(spec).items():
        click.echo(f"{key:<13}{value}")
    if not spec.is_local:
        click.echo(f"reported     {output.model}")
    click.echo(f"answer       {output.completion[:300]!r}")
    click.echo(f"tokens       {tokens_in} in, {tokens_out} out, {output.time or 0:.2f} s")
    if spec.price and tokens_in is not None and tokens_out is not None:
        cost = spending.price(spec.price, tokens_in, tokens_out)
        click.echo(f"cost         {1000 * cost:.4f} usd for a thousand such calls")


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
@data_option
def validate(names: tuple[str, ...], options: tuple[str, ...], data: Path | None) -> None:
    """Score every gold answer of every split: a task is sound if all of them score 1.0.

    \b
    Examples:
      cowest tasks validate
      cowest tasks validate cowest_pocket_ethics --set seed=5
      cowest tasks validate cowest_ifqa cowest_medmcqa --data DIR
    """
    from cowest_bench.tasks import list_tasks

    wanted = names or tuple(list_tasks())
    chosen = _options(options) | ({"data": str(data)} if data else {})
    wrong, unread = 0, []
    for name in wanted:
        try:
            wrong += _validate(name, chosen)
        except TaskError as error:
            click.echo(f"{name}: {error}", err=True)
            unread.append(name)
    if wrong:
        raise ConfigError(f"{wrong} gold answers do not score 1.0; mend the task's files.")
    if unread:
        raise TaskError(
            f"{len(unread)} of {len(wanted)} tasks could not be checked, for the reasons above: "
            f"{', '.join(unread)}."
        )


def _validate(name: str, options: dict[str, Any]) -> int:
    """Print what a task's splits hold, and return how many gold answers do not score 1.0."""
    from cowest_bench.tasks import describe_task, load_task, validate_task

    task = load_task(name, **options)
    checked = validate_task(task)
    described = describe_task(task)
    for split, (size, _) in described.items():
        right, total = checked.get(split, (0, 0))
        gold = f"{right}/{total} gold answers score 1.0\t" if total else ""
        click.echo(f"{name}\t{split}\t{gold}{size} rows")
    for split, (_, shares) in described.items():
        if shares:
            told = ", ".join(f"{gold or '(none)'} {share:.1%}" for gold, share in shares.items())
            click.echo(f"{name}\t{split}\tlabels: {told}")
    for split, count in task.leaks.items():
        click.echo(f"{name}\t{split}\t{count} rows dropped, since their question is in test")
    return sum(total - right for right, total in checked.values())


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
    stored = _stored(root)
    runs = [run for run in stored.all_runs() if run.split == "test"]
    if not runs:
        raise ConfigError(
            f"There are no results in {root}; make some with cowest demo or cowest run."
        )
    _rebuild(stored)
    _show(stored, runs, form, {})


# --- compare --------------------------------------------------------------------------------------

margin_option = click.option(
    "--margin",
    type=click.FloatRange(0, 1),
    default=0.02,
    show_default=True,
    help="A loss below it does not matter; in units of the score.",
)
alpha_option = click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Intervals hold with 1 - alpha, those of all domains together.",
)
baselines_option = click.option(
    "--baselines",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("baselines"),
    show_default=True,
    metavar="DIR",
    help="Folder of the blessed baselines, for git.",
)


@main.command()
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
    from cowest_bench import compare_report, report
    from cowest_bench.selection import compare_runs

    found = compare_runs(_stored(root), a, b, margin=margin, alpha=alpha)
    if form == "json":
        click.echo(json.dumps(compare_report.compared_json(found), indent=1))
    elif form == "csv":
        click.echo(report.csv_table(compare_report.compared_csv_rows(found)))
    elif form == "md":
        click.echo(compare_report.compared_markdown(found))
    else:
        _console().print(report.text_table(compare_report.verdict_rows(found.comparison)))
        _console().print(report.text_table(compare_report.run_rows(found)))
        for line in compare_report.left_out(found, printable):
            click.echo(line)


# --- check ----------------------------------------------------------------------------------------


def _report_option(name: str) -> Callable[[Any], Any]:
    return click.option(
        f"--{name}",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help=f"Also write the report as {name}.",
    )


@main.command("check", context_settings={"show_default": True})
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
        from cowest_bench import check as gates
        from cowest_bench import compare_report, report

        as_json = given.pop("json")
        found = gates.gate(
            _stored(root),
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
            _console().print(report.text_table(compare_report.verdict_rows(found.check.comparison)))
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
    from cowest_bench.records import replaced

    try:
        with replaced(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The report {path} cannot be written: {error.strerror}.") from error


@main.group()
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
    from cowest_bench import baseline as baselines
    from cowest_bench.selection import select

    stored = _stored(root)
    runs = [baselines.scored(stored, each) for each in select(stored.all_runs(), run)]
    path = baselines.bless(name, runs, folder)
    for each in runs:
        size = f"{len(each.scores)} questions\t{each.coverage:.1%} scored"
        click.echo(f"{path}\t{each.domain}\t{each.run_id}\t{size}")


@baseline.command("list")
@baselines_option
def list_baselines(folder: Path) -> None:
    """The blessed baselines, with their age and their runs."""
    from cowest_bench import baseline as baselines

    for path in sorted(folder.glob("*.json")):
        found = baselines.load(path)
        for each in found.runs:
            click.echo(
                f"{found.name}\t{found.age} days\t{each.domain}\t{each.system}\t{each.run_id}"
            )


# --- shared ---------------------------------------------------------------------------------------


def _stored(root: Path) -> Results:
    from cowest_bench.records import Results

    if not root.is_dir():
        raise ConfigError(
            f"There are no results in {root}; make some with cowest demo or cowest run."
        )
    return Results(root)


def _results(root: Path) -> Results:
    from cowest_bench.records import Results

    results = Results(root)
    results.prepare()
    return results


def _rebuild(results: Results) -> None:
    from cowest_bench import store

    store.rebuild(results)


def _show_estimate(plan: Plan, cells: list[Estimate], rate: float, form: str) -> None:
    from cowest_bench import report

    summary = report.summarise_plan(plan, cells, rate)
    if form == "json":
        click.echo(json.dumps(summary, indent=1))
    else:
        _console().print(report.plan_table(summary))
        for line in report.plan_lines(summary):
            click.echo(line)


def _show(results: Results, runs: list[Run], form: str, about: Mapping[str, Any]) -> None:
    from cowest_bench import report

    summary = report.summarise(results, runs)
    if form == "json":
        click.echo(json.dumps({**about, **summary}, indent=1))
    elif form == "csv":
        click.echo(report.as_csv(summary))
    elif form == "md":
        click.echo(report.as_markdown(summary))
    else:
        _console().print(report.as_table(summary))
        for line in report.seconds_line(summary):
            click.echo(line)
        for line in report.error_lines(summary):
            click.echo(line)
        if summary["errors"]:
            click.echo("The same command again asks only the questions that have no score.")


def _console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 200)


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
