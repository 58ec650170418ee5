"""Facts about models, from models.toml: what a result's name does not say."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import TypedDict


class Card(TypedDict, total=False):
    """What is known of a model; see models.toml."""

    weights: str
    billions: float
    licence: str
    context: int
    dollars: list[float]


@cache
def _cards() -> dict[str, Card]:
    path = Path(__file__).with_name("models.toml")
    known = tomllib.loads(path.read_text(encoding="utf-8"))["model"]
    return {name.lower(): card for card in known for name in card.pop("names")}


def card(model: object) -> Card:
    """The card of a model; empty if there is none."""
    return _cards().get(str(model).rsplit("/", 1)[-1].lower(), {})


def facts(model: str) -> str:
    """A card in words; empty if there is none."""
    known = card(model)
    parts = []
    if "billions" in known:
        parts.append(f"{known['billions']:g} billion parameters")
    if "weights" in known:
        parts.append("open weights" if known["weights"] == "open" else "behind an API")
    if "licence" in known:
        parts.append(f"licence {known['licence']}")
    if "context" in known:
        parts.append(f"context {known['context']:,} tokens")
    if "dollars" in known:
        parts.append("${:g} / ${:g} per million tokens in / out".format(*known["dollars"]))
    return ", ".join(parts)
