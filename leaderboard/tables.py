"""Tables as they are shown: pure functions that keep numbers as numbers, to be sorted and downloaded.

Each has a list of its columns. Untrusted texts are cut and printable.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

from leaderboard import text


class Column(NamedTuple):
    """A column of a table."""

    title: str
    form: str = "text"  # or interval (a text with numbers), or a format such as %.3f
    help: str = ""
    width: int | None = None  # pixels


RANKING = [
    Column("entry", width=270),
    Column("score", "%.3f", "Mean score over the samples.", 70),
    Column("score 95%", "interval", "Its 95% interval, clustered.", 120),
    Column("rank", "%d", "The best place the entry may have, at 95%.", 55),
    Column("to", "%d", "The worst place.", 45),
    Column("tie", "%d", "Entries with the same number cannot be told apart by rank.", 45),
    Column("gain", "%+.3f", "Over the strong model alone, on the same samples.", 75),
    Column("gain 95%", "interval", "The gain's 95% interval.", 135),
    Column("$ per 1k", "%.2f", "US dollars per 1,000 samples."),
    Column("s per 1k", "%.0f", "Seconds of model time per 1,000 samples."),
    Column("weak tokens", "%.0f", "Tokens per sample of the weak model."),
    Column("strong tokens", "%.0f", "Tokens per sample of the strong model."),
    Column("calls", "%.1f", "Calls per sample, of both models."),
    Column("scored", "percent", "Share of the samples that have a score."),
]
SHOWN = [column.title for column in RANKING[1:] if column.title not in ("to", "calls", "scored")]
MOST_DOMAINS = 8  # that have a column each


def intervals(frame: pd.DataFrame, low: str, high: str, form: str = ".3f") -> list[str]:
    """Two columns as one text."""
    return [text.interval(a, b, form) for a, b in zip(frame[low], frame[high], strict=True)]


def chances(values: pd.Series) -> list[str]:
    """p-values."""
    return ["<0.0001" if p < 0.0001 else text.number(p, ".4f") for p in values]


def labels(values: pd.Series) -> list[str]:
    """Untrusted names."""
    return [text.label(value) for value in values]


def _table(columns: list[Column], *values: object) -> pd.DataFrame:
    named = zip((column.title for column in columns), values, strict=True)
    return pd.DataFrame({title: pd.Series(list(each)) for title, each in named})  # type: ignore[call-overload]


def ranking(entries: pd.DataFrame, by_domain: pd.DataFrame) -> tuple[pd.DataFrame, list[Column]]:
    """The leaderboard of one suite and domain, with a column for each domain of pooled scores.

    Args:
        entries: ``data.entries``; without prices there is no column of dollars.
        by_domain: entry, domain and score; empty if one domain is shown.
    """
    e = entries
    table = _table(
        RANKING,
        labels(e["label"]),
        e["score"],
        intervals(e, "low", "high"),
        e["rank_best"],
        e["rank_worst"],
        e["tie_group"],
        e["over_strong"],
        intervals(e, "over_strong_low", "over_strong_high", "+.3f"),
        e["usd_per_1k"],
        e["seconds_per_1k"],
        e["weak_tokens_per_sample"],
        e["strong_tokens_per_sample"],
        e["calls"],
        e["coverage"],
    )
    columns = [*RANKING]
    if not (e["usd_per_1k"].fillna(0) > 0).any():
        columns = [column for column in columns if column.title != "$ per 1k"]
    if 1 < by_domain["domain"].nunique() <= MOST_DOMAINS:
        scores = by_domain.pivot(index="entry", columns="domain", values="score").reindex(
            e["entry"]
        )
        for i, domain in enumerate(scores.columns):
            title = f"in {text.label(domain, 20)}"
            columns.insert(3 + i, Column(title, "%.3f", "Score in this domain."))
            table[title] = scores[domain].to_numpy()
    return table[[column.title for column in columns]], columns


GAINS = [
    Column("domain"),
    Column("weak"),
    Column("strong"),
    Column("gain", "%+.3f", "Over the better of the two models alone, on the same samples."),
    Column("gain 95%", "interval", "Its 95% interval."),
    Column("p (Holm)", "interval", "Adjusted over the entries of the suite and domain."),
    Column("detectable", "%.3f", "The smallest true gain that such a run finds with 80% power."),
    Column("better alone", "text", "Which of the two is better alone."),
    Column("verdict"),
]


def gains(pairings: pd.DataFrame) -> pd.DataFrame:
    """The heatmaps in numbers: ``GAINS`` of ``data.pairings``."""
    e = pairings
    return _table(
        GAINS,
        labels(e["domain"]),
        labels(e["weak"]),
        labels(e["strong"]),
        e["over_best"],
        intervals(e, "over_best_low", "over_best_high", "+.3f"),
        chances(e["over_best_p_holm"]),
        e["over_best_detectable"],
        labels(e["best_single"]),
        [_after_holm(*each) for each in zip(e["over_best_verdict"], e["significant"], strict=True)],
    )


def _after_holm(verdict: object, significant: object) -> str:
    """The verdict of one pairing among many: a difference counts after Holm's correction only."""
    told = text.label(verdict)
    return (
        "inconclusive"
        if told in ("improved", "regressed") and significant is not True and not bool(significant)
        else told
    )


CONTRASTS = [
    Column("domain"),
    Column("verdict"),
    Column("difference", "%+.3f", "Candidate minus baseline."),
    Column("95%", "interval", "Its interval; those of all domains hold together."),
    Column("p (Holm)", "interval", "Two-sided, adjusted over the domains."),
    Column("candidate", "%.3f"),
    Column("baseline", "%.3f"),
    Column("samples", "%d", "With a score on both sides."),
    Column("helped", "%d"),
    Column("hurt", "%d"),
    Column("not scored", "%d"),
    Column(
        "detectable", "%.3f", "The smallest true difference that such a run finds with 80% power."
    ),
    Column("needed", "localized", "Samples that find a difference as large as the margin."),
]


def contrasts(comparison: pd.DataFrame) -> pd.DataFrame:
    """A comparison in numbers: ``CONTRASTS`` of ``comparison.table``."""
    c = comparison
    return _table(
        CONTRASTS,
        labels(c["domain"]),
        c["verdict"],
        c["difference"],
        intervals(c, "low", "high", "+.3f"),
        chances(c["p"]),
        *(c[n] for n in ("ours", "theirs", "n", "helped", "hurt")),
        *(c[n] for n in ("not_scored", "detectable", "needed")),
    )


def side_by_side(
    comparisons: dict[str, pd.DataFrame], baseline: str
) -> tuple[pd.DataFrame, list[Column]]:
    """Several entries against one baseline: ``comparison.compare`` by name, its index the domain."""
    columns = [Column("entry", width=260)]
    table: dict[str, list[Any]] = {"entry": [*comparisons, baseline]}
    domains = [*dict.fromkeys(each for found in comparisons.values() for each in found.index[::-1])]
    for domain in domains[: MOST_DOMAINS + 1]:
        score, difference = f"in {text.label(domain, 20)}", f"± {text.label(domain, 20)}"
        known = [found.loc[domain] if domain in found.index else None for found in comparisons.values()]  # fmt: skip
        theirs = next(row["theirs"] for row in known if row is not None)
        table[score] = [None if row is None else row["ours"] for row in known] + [theirs]
        table[difference] = ["not run" if row is None else _difference(row) for row in known] + [""]
        columns += [
            Column(score, "%.3f", "Score in this domain."),
            Column(
                difference,
                "interval",
                "Difference to the baseline with its interval, and the verdict.",
                240,
            ),
        ]
    return pd.DataFrame(table), columns


def _difference(row: pd.Series) -> str:
    return f"{text.estimate(row['difference'], row['low'], row['high'], '+.3f')} {row['verdict']}"


SAMPLES = [
    Column("no.", "%d", "Of the sample.", 50),
    Column("state", "text", "What became of it, against the other run.", 85),
    Column("question", width=230),
    Column("draft", "text", "Of the weak model.", 300),
    Column("answer", width=110),
    Column("gold", width=110),
    Column("score", "%.3f"),
    Column("other's", "%.3f", "Score of the other run."),
]


def samples(rows: pd.DataFrame) -> pd.DataFrame:
    """A page of samples: ``SAMPLES`` of ``data.sample_page``."""
    texts = ([text.label(t, 140) for t in rows[n]] for n in ("question", "draft", "answer", "gold"))
    return _table(SAMPLES, rows["sample_id"], rows["state"], *texts, rows["score"], rows["against"])


CALLS = [
    Column("role"),
    Column("calls", "%d"),
    Column("tokens in", "%d"),
    Column("tokens out", "%d"),
    Column("seconds", "%.2f"),
    Column("US dollars", "%.5f"),
]


def calls(row: pd.Series) -> pd.DataFrame:
    """The cost of one answer, by role: ``CALLS`` of a row of the table samples."""
    names = ("calls", "input_tokens", "output_tokens", "seconds", "cost")
    roles = ("weak", "strong")
    return _table(CALLS, roles, *([row[f"{role}_{name}"] for role in roles] for name in names))


CHECKPOINTS = [
    Column("run"),
    Column("made"),
    Column("weak checkpoint"),
    Column("score", "%.3f"),
    Column("score 95%", "interval"),
    Column("since the one before", "%+.3f"),
    Column("95%", "interval"),
    Column("verdict", "text", "Against the checkpoint before it."),
    Column("baseline", "text", "The newest blessed one of the same data and system."),
    Column("against it", "text", "The gate's verdict against the baseline."),
    Column("scored", "percent"),
]


def checkpoints(history: pd.DataFrame) -> pd.DataFrame:
    """An entry's runs: ``CHECKPOINTS`` of ``data.history``."""
    h = history
    return _table(
        CHECKPOINTS,
        labels(h["run_id"]),
        [str(created)[:16] for created in h["created"]],
        labels(h["checkpoint"]),
        h["score"],
        intervals(h, "low", "high"),
        h["difference"],
        intervals(h, "difference_low", "difference_high", "+.3f"),
        labels(h["verdict"]),
        labels(h["baseline"]),
        labels(h["baseline_verdict"]),
        h["coverage"],
    )


NEWEST = [
    Column("entry", width=220),
    Column("domain"),
    Column("verdict"),
    Column("difference", "%+.3f", "To the checkpoint before it."),
    Column("95%", "interval"),
    Column("checkpoint"),
    Column("checkpoints", "%d"),
    Column("made"),
]


def newest(found: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """``NEWEST`` of ``data.newest``, with the names of the entries."""
    return _table(
        NEWEST,
        [names[entry] for entry in found["entry"]],
        labels(found["domain"]),
        labels(found["verdict"]),
        found["difference"],
        intervals(found, "low", "high", "+.3f"),
        labels(found["checkpoint"]),
        found["checkpoints"],
        [str(created)[:16] for created in found["created"]],
    )


BASELINES = [
    Column("name"),
    Column("blessed"),
    Column("domain"),
    Column("system"),
    Column("weak"),
    Column("strong"),
    Column("score", "%.3f"),
    Column("samples", "%d"),
    Column("run"),
]


def baselines(blessed: pd.DataFrame) -> pd.DataFrame:
    """``BASELINES`` of ``data.baselines``."""
    b = blessed
    return _table(
        BASELINES,
        labels(b["name"]),
        [str(when)[:16] for when in b["blessed"]],
        *(labels(b[name]) for name in ("domain", "system", "weak", "strong")),
        b["score"],
        b["n"],
        labels(b["run_id"]),
    )


TRAININGS = [
    Column("training"),
    Column("kind"),
    Column("domain"),
    Column("weak"),
    Column("strong"),
    Column("rows", "%d", "Targets of SFT, or preference pairs of DPO."),
    Column("chosen step", "%d"),
    Column("seconds", "%.0f"),
    Column("seed", "%d"),
]


def trainings(found: pd.DataFrame) -> pd.DataFrame:
    """``TRAININGS`` of ``data.trainings``."""
    t = found
    return _table(
        TRAININGS,
        *(labels(t[name]) for name in ("training", "kind", "domain", "weak", "strong")),
        *(t[name] for name in ("n_rows", "best_step", "seconds", "seed")),
    )
