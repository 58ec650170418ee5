"""The tables ``trainings`` and ``training_steps``, from the cards of trainings."""

from __future__ import annotations

from math import isfinite

from cowest_bench.store.cards import Card, Feedback
from cowest_bench.store.records import Entry
from cowest_bench.store.rows import Measured
from cowest_bench.store.suites import shown
from cowest_bench.store.tables import TableRow

MOST_STEPS = 10_000  # of one training

#: Columns of the table ``training_steps``, by their names in trl's log.
LOGGED = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "chosen_logp": "logps/chosen",
    "rejected_logp": "logps/rejected",
    "margin": "rewards/margins",
    "accuracy": "rewards/accuracies",
}


def training_row(card: Card, each: Measured, feedback: Feedback | None) -> TableRow:
    """A row of ``trainings``: a training, and the run that stands for it."""
    content = card.content
    integers = {name: content.get(name) for name in ("n_rows", "best_step", "seed")}
    return {
        "training": card.name,
        "kind": card.kind,
        "suite": each.place.suite,
        "domain": each.place.domain,
        "entry": Entry.of(each.run).id,
        "run_id": each.run.run_id,
        "feedback_run": feedback and feedback.drafts.run.run_id,
        **{role: shown(spec.base_label) for role, spec in each.run.models.items()},
        **{name: value for name, value in integers.items() if isinstance(value, int)},
        "seconds": _number(content.get("seconds")),
        "settings": content.get("settings"),
        "versions": content.get("versions"),
    }


def step_rows(card: Card) -> list[TableRow]:
    """The rows of ``training_steps`` for one training: what trl logged, and the scores on dev."""
    steps: dict[int, TableRow] = {}
    logged = card.content.get("history")
    for entry in logged if isinstance(logged, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("step"), int) and "loss" in entry:
            known = {column: _number(entry.get(name)) for column, name in LOGGED.items()}
            steps.setdefault(entry["step"], {}).update(known)
    scores = card.content.get("dev_scores")
    for step, score in scores.items() if isinstance(scores, dict) else ():
        if str(step).isdecimal():
            steps.setdefault(int(step), {})["dev_score"] = _number(score)
    rows = [{"training": card.name, "step": step, **row} for step, row in sorted(steps.items())]
    return rows[:MOST_STEPS]


def _number(value: object) -> float | None:
    """A finite number, or None for anything else that an untrusted file may hold."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if isfinite(value) else None
    except OverflowError:
        return None
