"""Which training made a run's weak model, and by which feedback: read from cards, by folder name.

A card stands in ``models/NAME/card.json`` of a results folder. It is looked up by NAME, since folders
move. Feedback runs are found by what they were made with: the weak model that the training started
from, and the strong model of the test run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import Any

from cowest_bench.board.standings import Entry, Measured, Row, Stored, shown
from cowest_bench.errors import ConfigError
from cowest_bench.gate.baseline import NAME
from cowest_bench.lab.feedback import Signal, influence
from cowest_bench.store import Results, Run, SampleScore, content_hash

MOST_STEPS = 10_000  # of one training that are shown
LEFT_OUT = "…"  # stands for a draft where texts are not published
FEEDBACK_COLUMNS = ("sample_id", "epoch", "draft", "score", "gold_logprob")

#: Columns of the table ``training_steps``, by their names in trl's log.
LOGGED = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "chosen_logp": "logps/chosen",
    "rejected_logp": "logps/rejected",
    "margin": "rewards/margins",
    "accuracy": "rewards/accuracies",
}


@dataclass(frozen=True, slots=True)
class Training:
    """A training that made the weak model of a run.

    Attributes:
        name: Name of the folder.
        card: What it was made from, and how it went.
        path: The card's file.
    """

    name: str
    card: Mapping[str, Any]
    path: Path


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a preference training learned from.

    Attributes:
        drafts: The ``collab`` run of the feedback split.
        alone: The ``strong`` run of the same questions.
        judged: The evaluator's run, where there was one.
    """

    drafts: Stored
    alone: Stored
    judged: Stored | None


# --- cards ----------------------------------------------------------------------------------------


def training(run: Run, folders: Sequence[Results]) -> Training | None:
    """The training of a run's weak model, if its card is in one of the folders."""
    if run.weak is None or run.weak.card is None:
        return None
    name = PurePosixPath(run.weak.card.replace("\\", "/")).parent.name
    path = _card_path(name, folders)
    card = _read(path) if path else None
    if path is None or card is None or card.get("kind") not in ("sft", "dpo"):
        return None
    return Training(name, card, path)


def _card_path(name: str, folders: Sequence[Results]) -> Path | None:
    if not NAME.fullmatch(name):
        return None
    paths = (folder.models / name / "card.json" for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return card if isinstance(card, dict) else None


def merged_card(run: Run, folders: Sequence[Results]) -> Path | None:
    """The card of the weak model's folder, if an adapter was merged into it before the training."""
    if run.weak is None:
        return None
    name = run.weak.name.rstrip("/").rsplit("/", 1)[-1]
    return _card_path(name, folders) if name.startswith("merged-") else None


def training_row(found: Training, each: Measured) -> Row:
    """The table ``trainings``: a training, with the run that it was for."""
    card = found.card
    integers = {name: card.get(name) for name in ("n_rows", "best_step", "seed")}
    return {
        "training": found.name,
        "kind": card["kind"],
        "suite": each.suite,
        "domain": each.domain,
        "entry": Entry.of(each.run).id,
        "run_id": each.run.run_id,
        **{role: shown(spec.base_label) for role, spec in each.run.models.items()},
        **{name: value for name, value in integers.items() if isinstance(value, int)},
        "seconds": number(card.get("seconds")),
        "settings": card.get("settings"),
        "versions": card.get("versions"),
    }


def step_rows(found: Training) -> list[Row]:
    """The table ``training_steps`` of one training: what trl logged, and the scores on dev."""
    steps: dict[int, Row] = {}
    logged = found.card.get("history")
    for entry in logged if isinstance(logged, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("step"), int) and "loss" in entry:
            known = {column: number(entry.get(name)) for column, name in LOGGED.items()}
            steps.setdefault(entry["step"], {}).update(known)
    scores = found.card.get("dev_scores")
    for step, score in scores.items() if isinstance(scores, dict) else ():
        if str(step).isdecimal():
            steps.setdefault(int(step), {})["dev_score"] = number(score)
    rows = [{"training": found.name, "step": step, **row} for step, row in sorted(steps.items())]
    return rows[:MOST_STEPS]


def number(value: Any) -> float | None:
    """A finite number, or None for all else that a file of others may hold."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    try:
        return float(value) if known and isfinite(value) else None
    except OverflowError:
        return None


# --- feedback -------------------------------------------------------------------------------------


def feedback(
    run: Run, found: Training, stored: Sequence[Stored], folders: Sequence[Results]
) -> Feedback | None:
    """The feedback runs behind a preference training, if they are there; ``stored`` oldest first."""
    if found.card["kind"] != "dpo":
        return None
    merged = merged_card(run, folders)
    before = (_read(merged) or {}).get("model") if merged else None
    origins = [origin for origin in (found.card.get("model"), before) if origin]
    strong = run.model_ids.get("strong")
    known = [each for each in stored if (each.run.split, each.run.task) == ("feedback", run.task)]
    drafts = [
        each
        for each in known
        if (each.run.system, each.run.control, each.run.format) == ("collab", None, run.format)
        and each.run.model_ids.get("strong") == strong
        and each.run.model_ids.get("weak") in origins
    ]
    if not drafts:
        return None
    # The method samples drafts with the seed of the training; else the newest.
    drafted = max(
        drafts, key=lambda each: (each.run.seed == found.card.get("seed"), each.run.created)
    )
    data, graded = drafted.run.data, drafted.run.graded
    alone = [
        each
        for each in known
        if (each.run.system, each.run.data) == ("strong", data)
        and each.run.model_ids.get("strong") == strong
    ]
    if not alone:
        return None
    without = max(alone, key=lambda each: (each.run.graded == graded, each.run.created))
    return Feedback(drafted, without, _judged(drafted, without, known))


def _judged(drafts: Stored, alone: Stored, known: Sequence[Stored]) -> Stored | None:
    """The evaluator's run of just these answers."""
    judged = [each for each in known if each.run.system == "evaluator"]
    if not judged:
        return None
    columns = ("sample_id", "epoch", "output")
    answers = [row for each in (drafts, alone) for row in zip(*_lists(each, columns), strict=True)]
    of_these = content_hash(answers)
    return next((e for e in reversed(judged) if e.run.identity.get("answers") == of_these), None)


def _lists(each: Stored, columns: Sequence[str]) -> list[list[Any]]:
    return [column.to_pylist() for column in each.results.columns(each.run, columns).columns]


def influence_rows(name: str, given: Feedback) -> Iterator[Row]:
    """The table ``influences`` of one training: Δ of every scored draft, by every signal there is.

    Raises:
        ComparisonError: If the rows of a run cannot be read.
    """
    alone = _rows(given.alone)
    sides: list[tuple[Signal, Stored]] = [("metric", given.drafts), ("logprob", given.drafts)]
    if given.judged:
        sides.append(("evaluator", given.judged))
    for signal, of in sides:
        by_epoch: dict[int, list[SampleScore]] = {}
        for row in _rows(of):
            by_epoch.setdefault(row.epoch, []).append(row)
        for epoch, rows in sorted(by_epoch.items()):
            with suppress(ConfigError):  # no log-probabilities were recorded
                for candidate in influence(rows, alone, signal):
                    yield {
                        "training": name,
                        "run_id": given.drafts.run.run_id,
                        "signal": signal,
                        "sample_id": candidate.sample_id,
                        "epoch": epoch,
                        "delta": candidate.influence,
                    }


def _rows(each: Stored) -> list[SampleScore]:
    """The columns that influence is computed from."""
    return [
        SampleScore(
            run_id=each.run.run_id,
            sample_id=sample_id,
            epoch=epoch,
            cluster=None,
            question="",
            gold="",
            draft=draft,
            score=score,
            gold_logprob=logprob,
        )
        for sample_id, epoch, draft, score, logprob in zip(
            *_lists(each, FEEDBACK_COLUMNS), strict=True
        )
    ]
