"""The table at the end: what each system scored, and what collaboration and tuning gained."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

from cowest_bench.analysis import stats
from cowest_bench.errors import printable
from cowest_bench.store import Results, Run, SampleScore

POOLED = "pooled"
REASON_LENGTH = 120  # characters of an error that a table shows; the row has more
REASONS = 3  # errors of one run that a table shows


class Question(NamedTuple):
    """A question that was scored: its mean over epochs, and what it shares with others."""

    score: float
    cluster: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Answers:
    """What one system answered in one domain, or in all of them."""

    questions: dict[tuple[str, int], Question]
    n_total: int
    usage: dict[str, int]

    @property
    def coverage(self) -> float:
        """Share of the questions that have a score."""
        return len(self.questions) / self.n_total

    @property
    def score(self) -> float:
        """Mean over the scored questions; NaN if there are none."""
        scores = [question.score for question in self.questions.values()]
        return sum(scores) / len(scores) if scores else float("nan")


def summarise(results: Results, runs: Sequence[Run]) -> dict[str, Any]:
    """Everything the table shows, as JSON: ``domains`` by system, ``pooled``, ``seconds``, ``errors``.

    All but ``seconds`` is a function of the runs' scores alone, the same to the last bit whenever and
    wherever the same runs are made again.
    """
    by_domain: dict[str, dict[str, Answers]] = defaultdict(dict)
    seconds: dict[str, dict[str, float]] = defaultdict(dict)
    errors: dict[str, dict[str, dict[str, int]]] = defaultdict(dict)
    feedback = [run for run in results.all_runs() if run.split == "feedback"]
    for domain, system, run in labelled(runs):
        by_domain[domain][system] = answers(results, run)
        seconds[domain] |= _seconds(run, system, feedback)
        if run.n_scored < run.n_total:
            errors[domain][system] = _errors(results.samples(run))
    systems = list(dict.fromkeys(name for known in by_domain.values() for name in known))
    pooled = {
        name: pool([known[name] for known in by_domain.values()])
        for name in systems
        if all(name in known for known in by_domain.values())
    }
    return {
        "domains": {domain: compare(known) for domain, known in by_domain.items()},
        POOLED: compare(pooled),
        "seconds": dict(seconds),
        "errors": dict(errors),
    }


def labelled(runs: Sequence[Run]) -> Iterator[tuple[str, str, Run]]:
    """Each run with the name of its domain and system, as long as it takes to tell runs apart."""
    data: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        data[run.domain].add(run.data)
    domains = {}
    for run in runs:
        options = " ".join(f"{key}={value}" for key, value in run.options.items())
        several = len(data[run.domain]) > 1
        domains[run.run_id] = f"{run.domain} ({options or run.task})" if several else run.domain
    formats = {run.format for run in runs if run.format}
    system = {}
    for run in runs:
        about = [run.format] if run.format and len(formats) > 1 else []
        about += [run.control] if run.control else []
        system[run.run_id] = f"{run.system} ({', '.join(about)})" if about else run.system
    cells = Counter((domains[run.run_id], system[run.run_id]) for run in runs)
    for run in runs:
        name = system[run.run_id]
        if cells[domains[run.run_id], name] > 1:
            models = " + ".join(spec.label for spec in (run.weak, run.strong) if spec)
            name = f"{name} [{models} {run.run_id[:4]}]"
        yield domains[run.run_id], name, run


def answers(results: Results, run: Run) -> Answers:
    """A run's scores by question; questions of the same data are the same in every run."""
    rows = results.samples(run)
    data = run.data
    scores: dict[int, list[float]] = defaultdict(list)
    clusters: dict[int, str] = {}
    for row in rows:
        clusters[row.sample_id] = row.cluster or str(row.sample_id)
        if row.score is not None:
            scores[row.sample_id].append(row.score)
    return Answers(
        {
            (data, sample_id): Question(sum(values) / len(values), (data, clusters[sample_id]))
            for sample_id, values in sorted(scores.items())
        },
        len(clusters),
        {
            "weak_calls": sum(row.weak_calls for row in rows),
            "weak_tokens": _tokens(rows, "weak"),
            "strong_calls": sum(row.strong_calls for row in rows),
            "strong_tokens": _tokens(rows, "strong"),
        },
    )


def _tokens(rows: Sequence[SampleScore], role: str) -> int:
    """Tokens in and out, as far as endpoints said."""
    return sum(
        (getattr(row, f"{role}_input_tokens") or 0) + (getattr(row, f"{role}_output_tokens") or 0)
        for row in rows
    )


def pool(parts: Sequence[Answers]) -> Answers:
    """The questions of several domains together, every question counting the same."""
    return Answers(
        {key: question for part in parts for key, question in part.questions.items()},
        sum(part.n_total for part in parts),
        {key: sum(part.usage[key] for part in parts) for key in parts[0].usage},
    )


def compare(systems: Mapping[str, Answers]) -> dict[str, Any]:
    """Each system's score, and its differences to others on the questions both have scores for."""
    single = [name for name in ("weak", "strong") if name in systems]
    best = max(single, key=lambda name: systems[name].score, default="")
    result = {}
    for name, known in systems.items():
        questions = list(known.questions.values())
        estimate = stats.mean_interval([q.score for q in questions], [q.cluster for q in questions])
        row: dict[str, Any] = {
            "score": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "n": len(questions),
            "coverage": known.coverage,
            **known.usage,
        }
        if name.startswith("collab"):
            others = dict.fromkeys((best, "weak", "strong", "collab"))
            row["best_single"] = best
            row["over"] = {
                other: _difference(known, systems[other])
                for other in others
                if other in systems and other != name
            }
        result[name] = row
    return result


def _difference(ours: Answers, theirs: Answers) -> dict[str, Any]:
    common = [key for key in ours.questions if key in theirs.questions]
    mine = [ours.questions[key].score for key in common]
    other = [theirs.questions[key].score for key in common]
    estimate = stats.paired_difference(mine, other, [ours.questions[key].cluster for key in common])
    table = stats.mcnemar(mine, other)
    return {
        "difference": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": len(common),
        **table._asdict(),
    }


def _errors(rows: Sequence[SampleScore]) -> dict[str, int]:
    """How many answers have no score, by the start of the reason."""
    messages = [printable(row.error[:REASON_LENGTH]) for row in rows if row.error]
    return dict(Counter(" ".join(message.split()) for message in messages).most_common())


def _seconds(run: Run, system: str, feedback: Sequence[Run]) -> dict[str, float]:
    """How long the run took, the training that made its weak model, and the feedback for that."""
    seconds = {system: run.seconds}
    if run.system == "collab-tuned":
        asked = [
            other
            for other in feedback
            if (other.task, other.options, other.strong) == (run.task, run.options, run.strong)
            and (other.weak is None or run.weak is None or other.weak.name == run.weak.name)
        ]
        seconds["feedback"] = sum(other.seconds for other in asked)
    if run.weak and run.weak.card and Path(run.weak.card).is_file():
        card = json.loads(Path(run.weak.card).read_text(encoding="utf-8"))
        tuned = card["kind"] == "dpo" and run.control
        seconds[f"dpo ({run.control})" if tuned else card["kind"]] = card["seconds"]
    return seconds


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
    lines = []
    for domain, systems in {**summary["domains"], POOLED: summary[POOLED]}.items():
        for system, row in systems.items():
            gain = row.get("over", {}).get(row.get("best_single"))
            values = (
                domain,
                system,
                f"{row['score']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
                str(row["n"]),
                f"{row['coverage']:.0%}",
                signed(gain["difference"], gain["low"], gain["high"]) if gain else "",
                p_value(gain["p"]) if gain else "",
                f"{gain['helped']}/{gain['hurt']}" if gain else "",
                str(row["strong_calls"]),
                str(row["strong_tokens"]),
                str(row["weak_tokens"]),
            )
            lines.append(dict(zip(COLUMNS, values, strict=True)))
    return lines


def signed(value: float, low: float, high: float) -> str:
    """A difference with its interval."""
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def p_value(p: float) -> str:
    """Three digits, the least being <0.001."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def as_table(summary: Mapping[str, Any]) -> Table:
    """For a terminal."""
    return text_table(rows(summary))


def as_markdown(summary: Mapping[str, Any]) -> str:
    """For a README or a pull request."""
    return markdown_table(rows(summary))


def text_table(lines: Sequence[Mapping[str, str | Text]]) -> Table:
    """Lines with the same columns, for a terminal; what the first column repeats is one section."""
    table = Table(box=box.SIMPLE_HEAD)
    for i, column in enumerate(lines[0] if lines else ()):
        header = Text(printable(column))
        table.add_column(header, justify="left" if i < 2 else "right", no_wrap=True)
    previous = None
    for line in lines:
        first, *others = line.values()
        if previous not in (None, first):
            table.add_section()
        # As Text, since a name may hold what rich reads as markup.
        cells = ("" if first == previous else first, *others)
        table.add_row(*(c if isinstance(c, Text) else Text(printable(c)) for c in cells))
        previous = first
    return table


def markdown_table(lines: Sequence[Mapping[str, str]]) -> str:
    """Lines with the same columns, of which there is one, as Markdown; cells are Markdown already."""
    columns = list(lines[0])
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join(head + [f"| {' | '.join(line.values())} |" for line in lines])


def as_csv(summary: Mapping[str, Any]) -> str:
    """One line for each domain and system, with plain numbers."""
    records = [
        {"domain": domain, "system": system}
        | {key: value for key, value in row.items() if key not in ("over", "best_single")}
        for domain, systems in {**summary["domains"], POOLED: summary[POOLED]}.items()
        for system, row in systems.items()
    ]
    return csv_table(records)


def csv_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Lines with the same columns, as CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue().rstrip("\n")


def error_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Why answers have no score, a line for each reason, the most frequent first."""
    for domain, systems in summary["errors"].items():
        for system, reasons in systems.items():
            for reason, count in list(reasons.items())[:REASONS]:
                yield f"{domain} {system}: {count} without a score: {reason}"


def seconds_line(summary: Mapping[str, Any]) -> list[str]:
    """How long every stage took, a line for each domain."""
    return [
        f"{domain}: " + ", ".join(f"{stage} {value:.0f} s" for stage, value in stages.items())
        for domain, stages in summary["seconds"].items()
    ]
