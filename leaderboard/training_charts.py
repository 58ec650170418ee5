"""Charts of the page Training; see ``charts``."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd

from leaderboard import text
from leaderboard.charts import (
    AROUND,
    BLUE,
    GREEN,
    GREY,
    LEGEND,
    NAME,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Picture,
    shown_names,
    system_marks,
    tooltip,
)

SIGNALS = {
    "metric": "the score: with the draft, minus without",
    "logprob": "the gold answer's log-probability: with the draft, minus without",
    "evaluator": "the evaluator's mark: with the draft, minus without",
}
INFLUENCE = {"helped": BLUE, "neither": GREY, "hurt": VERMILLION}


def influence(deltas: pd.DataFrame, signal: str) -> Picture:
    """How often a draft changed the strong model's answer, and by how much.

    Args:
        deltas: delta, what was measured with the draft minus without.
        signal: What was measured, a key of ``SIGNALS``.
    """
    values = deltas["delta"].dropna()
    graded = values.nunique() > 3
    rows = _binned(values) if graded else _counted(values)
    rows["kind"] = [
        "helped" if d > 1e-9 else "hurt" if d < -1e-9 else "neither" for d in rows["middle"]
    ]
    title = f"Δ of {SIGNALS.get(signal, text.label(signal))}"
    colours = alt.Scale(domain=[*INFLUENCE], range=[*INFLUENCE.values()])
    helped, hurt = int((values > 0).sum()), int((values < 0).sum())
    base = alt.Chart(rows).encode(
        y=alt.Y("drafts:Q", title="drafts"),
        color=alt.Color("kind:N", scale=colours, legend=LEGEND),
        tooltip=tooltip(from_="start:Q", to="end:Q", drafts="drafts:Q"),
    )
    bars: alt.Chart = (
        base.mark_bar().encode(x=alt.X("start:Q", title=title, bin="binned"), x2="end:Q")
        if graded
        else base.mark_bar(size=46, cornerRadius=2).encode(
            x=alt.X("middle:O", title=title, axis=alt.Axis(labelAngle=0, format="+.3~f"))
        )
    )
    return bars.properties(
        height=260,
        description=f"{len(values)} drafts: {helped} helped, {hurt} hurt, "
        f"{len(values) - helped - hurt} neither.",
    )


def _counted(values: pd.Series) -> pd.DataFrame:
    counts = values.value_counts().sort_index()
    at = counts.index.to_numpy(dtype=float)
    return pd.DataFrame({"start": at, "end": at, "middle": at, "drafts": counts.to_numpy()})


def _binned(values: pd.Series, bins: int = 40) -> pd.DataFrame:
    """A histogram, so that a browser gets bars and not a million values."""
    counts, edges = np.histogram(values, bins=bins)
    start, end = edges[:-1], edges[1:]
    return pd.DataFrame({"start": start, "end": end, "middle": (start + end) / 2, "drafts": counts})


CURVES = {
    "chosen_logp": ("log-probability", "chosen draft", BLUE),
    "rejected_logp": ("log-probability", "rejected draft", VERMILLION),
    "margin": ("margin of the rewards", "margin", GREEN),
    "accuracy": ("pairs told apart", "accuracy", PURPLE),
    "dev_score": ("dev score of the collaboration", "dev score", ORANGE),
    "loss": ("loss", "loss", SKY),
}
"""A column of training_steps: the chart it belongs to, what it is called there, its colour."""


def recorded(steps: pd.DataFrame) -> list[str]:
    """The charts of ``CURVES`` that a training has anything for."""
    of = {title: column for column, (title, _, _) in CURVES.items() if steps[column].notna().any()}
    return [*of]


def curves(steps: pd.DataFrame, title: str, best_step: float | None = None) -> Picture:
    """What a training did at every step; the dashed line is the step that was kept.

    Args:
        steps: step and the columns of ``CURVES``.
        title: The chart, as ``CURVES`` names it.
        best_step: Of the checkpoint that was chosen.
    """
    lines = {column: (name, colour) for column, (of, name, colour) in CURVES.items() if of == title}
    rows = steps.melt("step", [*lines], "column", "value").dropna()
    rows["line"] = [lines[column][0] for column in rows["column"]]
    colours = alt.Scale(
        domain=[name for name, _ in lines.values()], range=[colour for _, colour in lines.values()]
    )
    legend = LEGEND if len(lines) > 1 else None
    line = (
        alt.Chart(rows)
        .mark_line(point=alt.OverlayMarkDef(size=28), strokeWidth=2)
        .encode(
            x=alt.X("step:Q", title="step"),
            y=alt.Y("value:Q", title=title, scale=alt.Scale(zero=False, nice=True)),
            color=alt.Color("line:N", scale=colours, legend=legend),
            strokeDash=alt.StrokeDash(
                "line:N",
                scale=alt.Scale(domain=colours.domain, range=[[1, 0], [5, 3]]),
                legend=legend,
            ),
            tooltip=tooltip(line="line:N", step="step:N", value="value:Q"),
        )
    )
    kept = pd.DataFrame({"step": [] if text.is_missing(best_step) else [best_step]})
    rule = (
        alt.Chart(kept).mark_rule(color=GREY, strokeDash=[4, 4], strokeWidth=2).encode(x="step:Q")
    )
    last = "; ".join(
        f"{name} from {part['value'].iloc[0]:.3f} to {part['value'].iloc[-1]:.3f}"
        for name, part in rows.groupby("line", sort=False)
    )
    return alt.layer(line, rule).properties(
        height=260,
        description=f"{title.capitalize()} by training step: {last or 'nothing recorded'}.",
    )


def draft_lengths(lengths: pd.DataFrame, systems: pd.DataFrame) -> Picture:
    """Mean tokens of a draft, by domain and system.

    Args:
        lengths: domain, system, draft_tokens.
        systems: ``data.systems``.
    """
    rows = shown_names(lengths, "domain", "system")
    color, shape = system_marks(systems)
    points: alt.Chart = (
        alt.Chart(rows)
        .mark_point(filled=True, size=90, opacity=0.9)
        .encode(
            x=alt.X("draft_tokens:Q", title="tokens of a draft, mean", scale=alt.Scale(zero=True)),
            y=alt.Y("domain:N", axis=NAME),
            yOffset=alt.YOffset("system:N", sort=[text.label(name) for name in systems["system"]]),
            tooltip=tooltip(domain="domain:N", system="system:N", tokens="draft_tokens:Q"),
            color=color,
            shape=shape,
        )
    )
    return points.properties(
        height=AROUND + 72 * max(1, rows["domain"].nunique()),
        description=f"Mean length of the drafts of {len(rows)} runs, in tokens.",
    )
