"""Untrusted text, made safe to show: nothing in it is markup, and nothing in it is invisible.

What models and strangers wrote is shown as text. These functions return plain text, or HTML in which
every character of theirs is escaped; no page shows a raw value in any other way.
"""

from __future__ import annotations

import html
import re
import unicodedata
from difflib import SequenceMatcher

NONE = "\N{EN DASH}"  # for what is not there
LONGEST = 20_000  # characters of one text on a page
LONGEST_LABEL = 80
MOST_WORDS = 1_500  # of each side of a word diff: its time grows with their product

# Joiners carry meaning inside words and emoji; all other format characters hide or reorder text.
_KEPT = frozenset("\n\t\u200c\u200d")
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))

_BLOCK = (
    "white-space:pre-wrap;overflow-wrap:anywhere;max-height:32rem;overflow:auto;line-height:1.5"
)
# Bold and struck out as well as coloured: not everyone sees the colours.
_INSERTED = "background:rgba(0,114,178,.22);text-decoration:none;font-weight:600;border-radius:2px"
_DELETED = "background:rgba(213,94,0,.20);text-decoration:line-through;border-radius:2px"


def printable(text: str) -> str:
    """Text in which control, bidi and other invisible characters can be seen.

    Control characters become their pictures (U+2400 and on), all others their number: ``⟨202E⟩``.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character in _KEPT or unicodedata.category(character) not in _HIDDEN:
        return character
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"⟨{code:04X}⟩"


def bounded(text: str, limit: int = LONGEST) -> str:
    """The start of a text, with its length if there is more."""
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text):,} characters)"


def label(value: object, limit: int = LONGEST_LABEL) -> str:
    """A name or the start of a text on one line; a dash where there is none."""
    if is_missing(value):
        return NONE
    line = printable(" ".join(str(value)[: 4 * limit].split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def plain(value: object) -> str:
    """A name for a label that Streamlit reads as Markdown."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", label(value, 40))


def is_missing(value: object) -> bool:
    """Whether a cell of a table is empty: None, NaN, NaT or NA."""
    return value is None or (not isinstance(value, str) and str(value) in ("nan", "NaT", "<NA>"))


def escaped(text: object, limit: int = LONGEST) -> str:
    """For HTML."""
    return html.escape(printable(bounded(str(text), limit)))


def markup(template: str, **values: object) -> str:
    """HTML from a template of ours, with values of others escaped and cut to the length of a label."""
    return template.format(**{name: html.escape(label(value)) for name, value in values.items()})


def block(text: object) -> str:
    """HTML of a longer text, its lines as they are."""
    if is_missing(text):
        return "<div><em>none</em></div>"
    return f'<div style="{_BLOCK}">{escaped(text) or "<em>empty</em>"}</div>'


def word_diff(before: str, after: str) -> str:
    """HTML of the second text, with what was taken from the first and what was added to it."""
    old, new = (_words(bounded(each)) for each in (before, after))
    if max(len(old), len(new)) > MOST_WORDS:
        return "<div><em>Too long to compare word by word.</em></div>"
    parts: list[str] = []
    match = SequenceMatcher(None, [w.strip() for w in old], [w.strip() for w in new], False)
    for kind, i, j, k, m in match.get_opcodes():
        if kind == "equal":
            parts.append(escaped("".join(new[k:m])))
            continue
        parts += _marked("del", _DELETED, old[i:j]) + _marked("ins", _INSERTED, new[k:m])
    return f'<div style="{_BLOCK}">{"".join(parts)}</div>'


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+\s*|\s+", text)


def _marked(tag: str, style: str, words: list[str]) -> list[str]:
    joined = "".join(words)
    marked = f'<{tag} style="{style}">{escaped(joined.rstrip())}</{tag}>'
    return [marked, escaped(joined[len(joined.rstrip()) :]) or " "] if words else []


# --- numbers --------------------------------------------------------------------------------------


def number(value: float | None, form: str = ".3f") -> str:
    """A number, or a dash."""
    return NONE if value is None or is_missing(value) else format(value, form)


def interval(low: float | None, high: float | None, form: str = ".3f") -> str:
    """``[low, high]``, or a dash."""
    if is_missing(low) or is_missing(high):
        return NONE
    return f"[{number(low, form)}, {number(high, form)}]"


def estimate(value: float | None, low: float | None, high: float | None, form: str = ".3f") -> str:
    """A number with its interval."""
    return f"{number(value, form)} {interval(low, high, form)}"
