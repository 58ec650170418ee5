"""The table of stored test runs: what each system scores, and what each collaboration gains.

Every collaboration is compared with the runs of its own models alone on the same data
(``selection.Singles``), wherever these are in the table and whether or not they are shown. Its gain is
the difference to the better of them (``analysis.gains``). All numbers, the p too, are those of
``cowest compare``: p belongs to the interval beside it, and is below 0.05 where that excludes 0.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from cowest_bench.analysis import POOLED, contrasts
from cowest_bench.analysis.contrasts import Items, finite
from cowest_bench.analysis.gains import gain
from cowest_bench.errors import ConfigError, RecordError, printable
from cowest_bench.report.tables import (
    contrast_json,
    csv_table,
    known,
    markdown_table,
    p_value,
    signed,
    text_table,
)
from cowest_bench.store import Results, Run
from cowest_bench.store.cards import card_of, number
from cowest_bench.store.comparison import StoredItems
from cowest_bench.store.records import Entry
from cowest_bench.store.selection import ANSWERING, Singles, closest_last
from cowest_bench.systems import find_system

REASON_LENGTH = 120  # characters of an error that a table shows; the row has more
REASONS = 3  # errors of one run that a table shows
DIGITS = 4  # of a run's id, at least
COUNTS = tuple(
    f"{role}_{what}" for role in ANSWERING for what in ("calls", "input_tokens", "output_tokens")
)


# --- what a line is made of -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """A run, with everything that its line in the table is made of."""

    run: Run
    domain: str  # name of its data set in the table
    system: str  # name of its line
    items: Items
    usage: Mapping[str, int]  # calls and tokens, as far as endpoints reported them
    errors: Mapping[str, int]  # answers without a score, by the start of the reason
    singles: Mapping[str, Items | None]  # of each system that it is compared with
    untuned: Mapping[str, Items]  # of other collaborations of its models, before tuning


def parts(results: Results, runs: Sequence[Run], known: Sequence[Run]) -> list[Part]:
    """Each run with what its line is made of, by all that are ``known``.

    Runs that cannot be read are left out and added to ``results.damaged``.
    """
    shown = {run.run_id for run in runs}
    # Of several runs of a model alone the last is meant: rather one that is shown.
    stored = sorted(known, key=lambda run: run.run_id in shown)
    read, alone, found = StoredItems(results), Singles(stored), []
    for domain, system, run in labelled(runs):
        items = read.of(run)
        try:
            usage, errors = _usage(results, run), _errors(results, run)
        except RecordError as error:
            results.skip(run, error)
            continue
        if items:
            singles = {name: read.of(alone.of(run, name)) for name in run.compared_with}
            others = {other.system: read.of(other) for other in _untuned(run, stored)}
            untuned = {name: each for name, each in others.items() if each}
            found.append(Part(run, domain, system, items, usage, errors, singles, untuned))
    return found


def _untuned(run: Run, stored: Sequence[Run]) -> list[Run]:
    """Collaborations of the same models before tuning and without a control, the closest last."""
    if not (run.compared_with and run.weak):
        return []
    return closest_last(
        run,
        [
            other
            for other in stored
            if other.run_id != run.run_id
            and (other.control, other.data, other.format) == (None, run.data, run.format)
            and other.compared_with == run.compared_with
            and other.model_ids.get("strong") == run.model_ids.get("strong")
            and not _is_tuned(other.system)
        ],
    )


def _is_tuned(system: str) -> bool:
    """False if the package that offers the system is not installed here."""
    try:
        return find_system(system).tuned
    except ConfigError:
        return False


def _usage(results: Results, run: Run) -> dict[str, int]:
    table = results.columns(run, COUNTS)
    total = {name: sum(filter(None, table[name].to_pylist())) for name in COUNTS}
    usage = {}
    for role in ANSWERING:
        usage[f"{role}_calls"] = total[f"{role}_calls"]
        usage[f"{role}_tokens"] = total[f"{role}_input_tokens"] + total[f"{role}_output_tokens"]
    return usage


def _errors(results: Results, run: Run) -> dict[str, int]:
    """How many answers have no score, by the start of the reason, the most frequent first."""
    if run.n_scored == run.n_total:
        return {}
    messages = filter(None, results.columns(run, ("error",))["error"].to_pylist())
    starts = (" ".join(printable(message[:REASON_LENGTH]).split()) for message in messages)
    return dict(Counter(starts).most_common())


# --- the summary ----------------------------------------------------------------------------------


def summarise(results: Results, runs: Sequence[Run]) -> dict[str, Any]:
    """Everything that the table shows, as JSON.

    ``domains`` (by system) and ``pooled`` hold the lines (see ``line``), ``seconds`` how long each
    stage took, ``errors`` the reasons of missing scores, ``damaged`` a sentence for each file that
    cannot be read. All but ``seconds`` and ``damaged`` follow from the runs' scores alone, to the last
    bit, whenever and wherever the same runs are made again.
    """
    stored = results.all_runs()
    found = parts(results, runs, stored)
    domains: dict[str, dict[str, Part]] = defaultdict(dict)
    for part in found:
        domains[part.domain][part.system] = part
    systems = dict.fromkeys(part.system for part in found)
    everywhere = [name for name in systems if all(name in of for of in domains.values())]
    return {
        "domains": {
            domain: {name: line([part]) for name, part in of.items()}
            for domain, of in domains.items()
        },
        POOLED: {name: line([of[name] for of in domains.values()]) for name in everywhere},
        "seconds": _seconds(results, found, {run.run_id: run for run in stored}),
        "errors": {
            domain: errors
            for domain, of in domains.items()
            if (errors := {name: dict(part.errors) for name, part in of.items() if part.errors})
        },
        "damaged": results.damaged,
    }


def line(of: Sequence[Part]) -> dict[str, Any]:
    """A line of the table as JSON: one system on one or several data sets, every sample counting once.

    A collaboration also has ``best_single``, the better of its models alone (null if one of them has
    no run on the same data: ``missing``), and ``over``: its contrast with each of them, and with the
    untuned collaborations of its models.
    """
    ours = [part.items for part in of]
    score = contrasts.score(ours)
    row: dict[str, Any] = {
        "score": finite(score.mean.value),
        "low": finite(score.mean.low),
        "high": finite(score.mean.high),
        "n": score.n,
        "coverage": score.coverage,
        **{name: sum(part.usage[name] for part in of) for name in of[0].usage},
    }
    if not of[0].singles:
        return row
    singles = {name: _everywhere(part.singles.get(name) for part in of) for name in of[0].singles}
    untuned = {name: _everywhere(part.untuned.get(name) for part in of) for name in of[0].untuned}
    found = gain(ours, {name: items for name, items in singles.items() if items})
    plain = [gain(ours, {name: items}) for name, items in untuned.items() if items]
    missing = [name for name, items in singles.items() if not items]
    over = [each.over for each in (found, *plain) if each]
    return row | {
        "best_single": found.best if found and not missing else None,
        "missing": missing,
        "over": {name: contrast_json(c) for each in over for name, c in each.items()},
    }


def _everywhere(of: Iterable[Items | None]) -> list[Items]:
    """Those of every data set; none unless all are there."""
    found = [*of]
    return [each for each in found if each] if all(found) else []


def _seconds(
    results: Results, found: Sequence[Part], stored: Mapping[str, Run]
) -> dict[str, dict[str, float]]:
    """How long the runs took, by domain, and the trainings of their weak models with their feedback."""
    seconds: dict[str, dict[str, float]] = defaultdict(dict)
    counted = set()
    for part in found:
        times = seconds[part.domain]
        times[part.system] = part.run.seconds
        for stage, made, took in _stages(results, part.run, stored):
            if (part.domain, made) not in counted:
                counted.add((part.domain, made))
                times[stage] = times.get(stage, 0.0) + took
    return dict(seconds)


def _stages(
    results: Results, run: Run, stored: Mapping[str, Run]
) -> Iterator[tuple[str, str, float]]:
    """The training that made a run's weak model and the feedback for it: name, id and seconds."""
    card = card_of(run, [results])
    seconds = number(card.content.get("seconds")) if card else None
    if card is None or seconds is None:
        return
    controlled = f" ({run.control})" if card.feedback and run.control else ""
    yield f"{card.kind}{controlled}", card.name, seconds
    for run_id in card.feedback.values():
        if run_id in stored:
            yield "feedback", run_id, stored[run_id].seconds


# --- names ----------------------------------------------------------------------------------------


def labelled(runs: Sequence[Run]) -> Iterator[tuple[str, str, Run]]:
    """Each run with the names of its domain and its system, as long as it takes to tell runs apart.

    ``collab``, with the format if there are several, with the control if there is one, with its
    models if there are several entries of that name; of several runs of one entry on the same data,
    all but the newest with the start of their id.
    """
    domains = _domains(runs)
    formats = {run.format for run in runs if run.format}
    entries: dict[str, set[Entry]] = defaultdict(set)
    systems = {}
    for run in runs:
        about = [run.format] if run.format and len(formats) > 1 else []
        about += [run.control] if run.control else []
        systems[run.run_id] = f"{run.system} ({', '.join(about)})" if about else run.system
        entries[systems[run.run_id]].add(Entry.of(run))
    newest: dict[tuple[str, str], Run] = {}
    for run in runs:
        name = systems[run.run_id]
        if len(entries[name]) > 1:
            systems[run.run_id] = f"{name} [{Entry.of(run).models}]"
        cell = domains[run.run_id], systems[run.run_id]
        newest[cell] = max(run, newest.get(cell, run), key=lambda run: (run.created, run.run_id))
    for run in runs:
        domain, name = domains[run.run_id], systems[run.run_id]
        older = newest[domain, name].run_id != run.run_id
        yield domain, f"{name} {_short(run, runs)}" if older else name, run


def _domains(runs: Sequence[Run]) -> dict[str, str]:
    """Each run's domain by its id, with the options or the task if it has several data sets."""
    data: dict[str, dict[str, str]] = defaultdict(dict)
    for run in runs:
        options = " ".join(f"{key}={value}" for key, value in run.options.items())
        data[run.domain].setdefault(run.data, f"{run.domain} ({options or run.task})")
    names: dict[str, str] = {}
    for run in runs:
        of = data[run.domain]
        name = of[run.data] if len(of) > 1 else run.domain
        twin = len(of) > 1 and [*of.values()].count(name) > 1
        names[run.run_id] = f"{name} · data {run.data[:DIGITS]}" if twin else name
    return names


def _short(run: Run, runs: Sequence[Run]) -> str:
    """The start of a run's id that no other run shares."""
    others = [other.run_id for other in runs if other.run_id != run.run_id]
    lengths = range(DIGITS, len(run.run_id))
    starts = (run.run_id[:length] for length in lengths)
    unique = (start for start in starts if not any(other.startswith(start) for other in others))
    return next(unique, run.run_id)


# --- as text --------------------------------------------------------------------------------------

COLUMNS = (
    "domain",
    "system",
    "score [95%]",
    "n",
    "coverage",
    "over best single [95%]",
    "p",
    "helped/hurt",
    "strong calls",
    "strong tokens",
    "weak tokens",
)


def rows(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """The table's cells as text, a dictionary for each line."""
    return [
        dict(zip(COLUMNS, _cells(domain, system, row), strict=True))
        for domain, system, row in _lines(summary)
    ]


def _lines(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for domain, systems in {**summary["domains"], POOLED: summary[POOLED]}.items():
        for system, row in systems.items():
            yield domain, system, row


def _cells(domain: str, system: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    gained = row.get("over", {}).get(row.get("best_single"))
    interval = f" [{known(row['low'], '.3f')}, {known(row['high'], '.3f')}]"
    return (
        domain,
        system,
        "" if row["score"] is None else known(row["score"], ".3f") + interval,
        str(row["n"]),
        f"{row['coverage']:.0%}",
        _difference(gained) if gained else "",
        p_value(gained["p"]) if gained else "",
        f"{gained['helped']}/{gained['hurt']}" if gained else "",
        str(row["strong_calls"]),
        str(row["strong_tokens"]),
        str(row["weak_tokens"]),
    )


def _difference(gained: Mapping[str, Any]) -> str:
    nan = float("nan")
    numbers = (gained[name] for name in ("difference", "low", "high"))
    return signed(*(nan if number is None else number for number in numbers))


def as_table(summary: Mapping[str, Any]) -> Table:
    """For a terminal."""
    return text_table(rows(summary))


def as_markdown(summary: Mapping[str, Any]) -> str:
    """For a README or a pull request."""
    return markdown_table(rows(summary))


def as_csv(summary: Mapping[str, Any]) -> str:
    """One line for each domain and system, with plain numbers."""
    nested = ("over", "best_single", "missing")
    return csv_table(
        [
            {"domain": domain, "system": system}
            | {key: value for key, value in row.items() if key not in nested}
            for domain, system, row in _lines(summary)
        ]
    )


def table_notes(summary: Mapping[str, Any]) -> Iterator[str]:
    """How the table is to be read, a line each."""
    if any(row.get("best_single") for _, _, row in _lines(summary)):
        yield (
            "over best single: the difference to the better of the models alone; p is two-sided and "
            "belongs to the interval, as in cowest compare"
        )
    for domain, system, row in _lines(summary):
        if row.get("missing") and domain != POOLED:
            yield (
                f"{domain} {system}: no gain is shown, because there is no run of "
                f"{' and '.join(row['missing'])} with the same model and data"
            )


def error_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Why answers have no score, a line for each reason, the most frequent first."""
    for domain, systems in summary["errors"].items():
        for system, reasons in systems.items():
            for reason, count in list(reasons.items())[:REASONS]:
                yield f"{domain} {system}: {count} without a score: {reason}"


def seconds_lines(summary: Mapping[str, Any]) -> list[str]:
    """How long every stage took, a line for each domain."""
    return [
        f"{domain}: " + ", ".join(f"{stage} {value:.0f} s" for stage, value in stages.items())
        for domain, stages in summary["seconds"].items()
    ]
