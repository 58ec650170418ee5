"""Tables for the terminal, Markdown and CSV, and how single values are written in them.

Names of models, tasks and domains come from others. In the terminal they are printable text without
markup; in Markdown they are code in which every character that could mean something is an entity.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from cowest_bench.analysis.contrasts import Contrast, finite
from cowest_bench.errors import printable

Show = Callable[[str], str]  # makes a name safe to show


# --- values ---------------------------------------------------------------------------------------


def signed(value: float, low: float, high: float) -> str:
    """A difference with its interval."""
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def p_value(p: float) -> str:
    """Three digits; the smallest is <0.001."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def known(value: float | None, form: str) -> str:
    """A number in a format; empty if it is not known."""
    return "" if value is None or finite(value) is None else format(value, form)


def escaped(text: str) -> str:
    """A name from others as Markdown that shows it and does nothing else.

    Entities are never syntax, so no table, link, HTML or address can come of it. GitHub looks for
    @mentions and #references in the text that is shown, but not within code.
    """
    safe = (c if c.isalnum() or c in " -" else f"&#{ord(c)};" for c in printable(text))
    return f"<code>{''.join(safe)}</code>"


def contrast_json(found: Contrast) -> dict[str, Any]:
    """A contrast as JSON and CSV have it (docs/check.md describes every field)."""
    return {
        "verdict": found.verdict,
        "difference": finite(found.difference.value),
        "low": finite(found.difference.low),
        "high": finite(found.difference.high),
        "confidence": 1 - found.alpha,
        "p": found.p,
        "p_holm": found.p_holm,
        "ours": found.ours,
        "theirs": found.theirs,
        "n": found.n,
        "helped": found.helped,
        "hurt": found.hurt,
        "both_right": found.both_right,
        "both_wrong": found.both_wrong,
        "not_scored": found.not_scored,
        "only_ours": found.only_ours,
        "only_theirs": found.only_theirs,
        "harm_rate": finite(found.harm_rate),
        "oracle": found.oracle,
        "oracle_gap": found.oracle_gap,
        "detectable": finite(found.detectable),
        "needed": found.needed,
    }


# --- tables ---------------------------------------------------------------------------------------


def text_table(lines: Sequence[Mapping[str, str | Text]]) -> Table:
    """Lines with the same columns, for a terminal; equal values in the first column form a section."""
    table = Table(box=box.SIMPLE_HEAD)
    for i, column in enumerate(lines[0] if lines else ()):
        header = Text(printable(column))
        table.add_column(header, justify="left" if i < 2 else "right", no_wrap=True)
    previous = None
    for line in lines:
        first, *others = line.values()
        if previous not in (None, first):
            table.add_section()
        # As Text, since a name may contain what rich reads as markup.
        cells = ("" if first == previous else first, *others)
        table.add_row(*(c if isinstance(c, Text) else Text(printable(c)) for c in cells))
        previous = first
    return table


def markdown_table(lines: Sequence[Mapping[str, str]]) -> str:
    """Lines with the same columns as Markdown; the cells are Markdown already."""
    if not lines:
        return ""
    columns = list(lines[0])
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join(head + [f"| {' | '.join(line.values())} |" for line in lines])


def csv_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Lines with the same columns, as CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue().rstrip("\n")
