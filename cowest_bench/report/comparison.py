"""Comparisons and checks for people and machines: terminal, Markdown, JUnit XML, JSON.

Names of models, tasks and domains come from others (see ``tables``); in XML, characters that no
document may contain are left out. No text of a sample or an answer is ever shown: samples appear as
their keys.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cowest_bench.analysis import POOLED
from cowest_bench.analysis.contrasts import Comparison, Contrast, finite
from cowest_bench.analysis.stats import Verdict
from cowest_bench.errors import printable
from cowest_bench.gate.baseline import ScoredRun
from cowest_bench.gate.check import Looked, Outcome, Report
from cowest_bench.report.tables import (
    Show,
    contrast_json,
    escaped,
    known,
    markdown_table,
    p_value,
    signed,
)
from cowest_bench.store.comparison import Compared, Profile
from cowest_bench.store.selection import described

SCHEMA_VERSION = 1
FLIPPED_SHOWN = 20


# --- JSON (docs/check.md describes every field) ------------------------------------------------


def compared_json(found: Compared) -> dict[str, Any]:
    """What ``cowest compare --format json`` prints."""
    return {
        "schema_version": SCHEMA_VERSION,
        **_comparison(found.comparison),
        "a": [_profile(each) for each in found.ours],
        "b": [_profile(each) for each in found.theirs],
        "differences": [
            {"domain": ours.run.domain, "data": ours.run.data, **_costs(ours, theirs)}
            for ours, theirs in _both(found)
        ],
        "left_out": left_out(found),
        "warnings": list(found.warnings),
    }


def check_json(report: Report) -> dict[str, Any]:
    """What ``cowest check --format json`` prints."""
    check, settings = report.check, report.check.settings
    looked = check.looked
    return {
        "schema_version": SCHEMA_VERSION,
        "outcome": check.outcome,
        "exit_code": check.exit_code,
        **_comparison(check.comparison),
        "alpha": settings.alpha,
        "min_coverage": settings.min_coverage,
        "inconclusive": settings.inconclusive,
        "critical": {"count": check.critical, "flipped": list(check.flipped)},
        "sequential": looked
        and {
            "look": looked.look,
            "looks": looked.looks,
            "seen": looked.seen,
            "questions": looked.samples,
            "calls_saved": looked.calls_saved,
        },
        "candidate": [_scored(run) for run in report.candidate],
        "baseline": {
            "name": report.baseline.name,
            "blessed": report.baseline.blessed.isoformat(),
            "age_days": report.baseline.age,
            "runs": [_scored(run) for run in report.baseline.runs],
        },
        "warnings": list(report.warnings),
    }


def _comparison(found: Comparison) -> dict[str, Any]:
    return {
        "margin": found.margin,
        "alpha": found.alpha,
        "domains": {name: contrast_json(each) for name, each in found.domains.items()},
        POOLED: contrast_json(found.pooled),
    }


def _profile(found: Profile) -> dict[str, Any]:
    run = found.run
    return {
        "run_id": run.run_id,
        "task": run.task,
        "domain": run.domain,
        "split": run.split,
        "system": run.system,
        "weak": run.weak.label if run.weak else None,
        "strong": run.strong.label if run.strong else None,
        "data": run.data,
        "score": run.score,
        "coverage": run.coverage,
        "usd_per_1k": finite(found.usd_per_1k),
        "seconds_per_1k": finite(found.seconds_per_1k),
        "copy_rate": finite(found.copy_rate),
        "gap_recovered": finite(found.gap_recovered),
    }


def _scored(run: ScoredRun) -> dict[str, Any]:
    names = ("run_id", "task", "domain", "split", "system", "weak", "strong", "data", "coverage")
    return {name: getattr(run, name) for name in names}


def _both(found: Compared) -> list[tuple[Profile, Profile]]:
    """Profiles of the same data."""
    theirs = {each.run.data: each for each in found.theirs}
    pairs = [(ours, theirs.get(ours.run.data)) for ours in found.ours]
    return [(ours, other) for ours, other in pairs if other is not None]


def _costs(ours: Profile, theirs: Profile) -> dict[str, float | None]:
    return {
        "usd_per_1k": finite(ours.usd_per_1k - theirs.usd_per_1k),
        "seconds_per_1k": finite(ours.seconds_per_1k - theirs.seconds_per_1k),
    }


# --- tables ---------------------------------------------------------------------------------------


def verdict_rows(found: Comparison, show: Show = str) -> list[dict[str, str]]:
    """A line for each domain and for all of them; ``show`` makes names safe to show."""
    named = [(show(name), each) for name, each in found.domains.items()]
    return [_verdict_row(name, each) for name, each in [*named, (POOLED, found.pooled)]]


def _verdict_row(name: str, found: Contrast) -> dict[str, str]:
    return {
        "domain": name,
        "verdict": found.verdict,
        "difference": signed(*found.difference),
        "level": f"{1 - found.alpha:.1%}",
        "p (Holm)": p_value(found.p_holm),
        "A": f"{found.ours:.3f}",
        "B": f"{found.theirs:.3f}",
        "n": f"{found.n:,}",
        "helped/hurt": f"{found.helped}/{found.hurt}",
        "both right/wrong": f"{found.both_right}/{found.both_wrong}",
        "harm": known(found.harm_rate, ".1%"),
        "oracle": f"{found.oracle:.3f} ({found.oracle_gap:+.3f})",
        "detectable": known(found.detectable, ".3f"),
        "needed": "" if found.needed is None else f"{found.needed:,}",
    }


def run_rows(found: Compared, show: Show = str) -> list[dict[str, str]]:
    """A line for each run, and one for the difference in cost of runs of the same data."""
    lines = [_run_row(side, each, show) for side, each in _sides(found)]
    for ours, theirs in _both(found):
        difference = _costs(ours, theirs)
        lines.append(
            dict.fromkeys(lines[0], "")
            | {
                "side": "A - B",
                "run": show(ours.run.domain),
                "usd/1k": known(difference["usd_per_1k"], "+.4f"),
                "s/1k": known(difference["seconds_per_1k"], "+.1f"),
            }
        )
    return lines


def _sides(found: Compared) -> list[tuple[str, Profile]]:
    return [("A", each) for each in found.ours] + [("B", each) for each in found.theirs]


def _run_row(side: str, found: Profile, show: Show) -> dict[str, str]:
    return {
        "side": side,
        "run": show(f"{found.run.run_id} {described(found.run)}"),
        "score": known(found.run.score, ".3f"),
        "coverage": f"{found.run.coverage:.1%}",
        "usd/1k": known(found.usd_per_1k, ".4f"),
        "s/1k": known(found.seconds_per_1k, ".1f"),
        "copied": known(found.copy_rate, ".1%"),
        "gap recovered": known(found.gap_recovered, ".2f"),
    }


def compared_csv_rows(found: Compared) -> list[dict[str, Any]]:
    """A line for each domain and for all of them, with plain numbers."""
    named = {**found.comparison.domains, POOLED: found.comparison.pooled}
    return [{"domain": name, **contrast_json(each)} for name, each in named.items()]


# --- sentences ------------------------------------------------------------------------------------


def left_out(found: Compared, show: Show = str) -> list[str]:
    """What was not compared, a sentence each."""
    both = {ours.run.data for ours, _ in _both(found)}
    alone = [
        f"{each.run.run_id} ({show(each.run.domain)}): only {side} answered this data"
        for side, each in _sides(found)
        if each.run.data not in both
    ]
    named = found.comparison.domains.items()
    return alone + [line for name, each in named for line in _missing(show(name), each)]


def _missing(domain: str, found: Contrast) -> list[str]:
    counts = {
        "without a score on one side": found.not_scored,
        "asked in A only": found.only_ours,
        "asked in B only": found.only_theirs,
    }
    return [
        f"{domain}: compared on the {found.n:,} samples that both have scores for; {why}: {count:,}"
        for why, count in counts.items()
        if count
    ]


def headline(report: Report) -> str:
    """The check in one sentence."""
    found = report.check.comparison.pooled
    return (
        f"{report.check.outcome}: {found.verdict}, {signed(*found.difference)} over the baseline "
        f"{report.baseline.name} on {found.n:,} samples, margin {report.check.settings.margin:g}"
    )


def check_lines(report: Report, show: Show = str) -> list[str]:
    """What the tables do not show, a sentence each."""
    check = report.check
    lines = []
    if check.critical:
        lines.append(_critical_line(check.critical, check.flipped))
    if check.looked:
        lines.append(looked_line(check.looked))
    if check.outcome == Outcome.INCONCLUSIVE and check.comparison.pooled.needed:
        lines.append(
            f"inconclusive: about {check.comparison.pooled.needed:,} samples would detect a "
            "difference as large as the margin"
        )
    return lines + [
        f"{show(name)}: samples of the baseline left out, without a score on one side: {count:,}"
        for name, found in check.comparison.domains.items()
        if (count := found.not_scored + found.only_theirs)
    ]


def looked_line(looked: Looked) -> str:
    """How far a sequential check had to look."""
    return (
        f"decided at look {looked.look} of {looked.looks}, after {looked.seen:,} of "
        f"{looked.samples:,} samples; stopping there saves {looked.calls_saved:,} calls"
    )


def _critical_line(count: int, flipped: Sequence[str]) -> str:
    if not flipped:
        return f"critical samples: none of {count} that were right is wrong now"
    shown = ", ".join(flipped[:FLIPPED_SHOWN])
    more = f" and {len(flipped) - FLIPPED_SHOWN} more" if len(flipped) > FLIPPED_SHOWN else ""
    return f"critical samples: {len(flipped)} of {count} were right and are wrong: {shown}{more}"


# --- Markdown -------------------------------------------------------------------------------------


def compared_markdown(found: Compared) -> str:
    """For a pull request."""
    parts = [
        markdown_table(verdict_rows(found.comparison, escaped)),
        markdown_table(run_rows(found, escaped)),
        *(f"- {line}" for line in left_out(found, escaped)),
        *_warned(found.warnings),
    ]
    return "\n\n".join(parts)


def check_markdown(report: Report) -> str:
    """For a pull-request comment or a job's summary."""
    runs = ", ".join(run.run_id for run in report.candidate)
    intro = (
        f"A: {runs}. B: the baseline {escaped(report.baseline.name)}, {report.baseline.age} days old. "
        f"A loss below {report.check.settings.margin:g} does not matter."
    )
    parts = [
        f"### cowest check: {report.check.outcome}",
        intro,
        markdown_table(verdict_rows(report.check.comparison, escaped)),
        *(f"- {line}" for line in check_lines(report, escaped)),
        *_warned(report.warnings),
    ]
    return "\n\n".join(parts)


def _warned(warnings: Iterable[str]) -> list[str]:
    return [f"- warning: {escaped(line)}" for line in warnings]


def check_texts(report: Report) -> dict[str, str]:
    """A check as ``md``, ``junit`` and ``json``."""
    return {
        "md": check_markdown(report),
        "junit": check_junit(report),
        "json": json.dumps(check_json(report), indent=1),
    }


# --- JUnit XML ------------------------------------------------------------------------------------


def check_junit(report: Report) -> str:
    """A test case for each domain, for all of them together, and for the critical samples."""
    check = report.check
    cases = [_case(name, each, None) for name, each in check.comparison.domains.items()]
    policy = check.settings.inconclusive
    cases.append(_case(POOLED, check.comparison.pooled, None if policy == "pass" else "failure"))
    if check.critical:
        case = ET.Element("testcase", classname="cowest.check", name="critical samples", time="0")
        if check.flipped:
            _say(case, "failure", "flipped", _critical_line(check.critical, check.flipped))
        cases.append(case)
    counts: dict[str, Any] = {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": "0",
        "skipped": str(sum(case.find("skipped") is not None for case in cases)),
        "time": "0",
    }
    suite = ET.Element("testsuite", name="cowest check", **counts)
    about = ET.SubElement(suite, "properties")
    for name, value in _properties(report).items():
        ET.SubElement(about, "property", name=name, value=_xml(value))
    suite.extend(cases)
    ET.SubElement(suite, "system-out").text = _xml("\n".join(check_lines(report)))
    del counts["skipped"]  # not in the schema here
    suites = ET.Element("testsuites", name="cowest check", **counts)
    suites.append(suite)
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True)


def _case(name: str, found: Contrast, inconclusive: str | None) -> ET.Element:
    case = ET.Element("testcase", classname="cowest.check", name=_xml(name), time="0")
    told = ", ".join(f"{key} {value}" for key, value in _verdict_row(name, found).items())
    if found.verdict == Verdict.REGRESSED:
        _say(case, "failure", found.verdict, told)
    elif found.verdict == Verdict.INCONCLUSIVE:
        _say(case, inconclusive or "skipped", found.verdict, told)
    return case


def _say(case: ET.Element, what: str, kind: str, message: str) -> None:
    ET.SubElement(case, what, type=kind, message=_xml(message))


def _properties(report: Report) -> Mapping[str, str]:
    return {
        "outcome": report.check.outcome,
        "baseline": report.baseline.name,
        "candidate": ", ".join(run.run_id for run in report.candidate),
        **{f"warning {i}": line for i, line in enumerate(report.warnings, 1)},
    }


def _xml(text: str) -> str:
    """Without characters that XML 1.0 forbids; line breaks stay."""
    return "\n".join(printable(line) for line in text.split("\n"))
