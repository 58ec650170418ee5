"""Packs finished runs for the committed reference results (``reference.py``)."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow
import pyarrow.compute as pc
import pyarrow.parquet

from cowest_bench.board.reference import (
    WITH_TEXT,
    canonical,
    cleaned,
    files,
    problems,
    write_index,
)
from cowest_bench.errors import ConfigError
from cowest_bench.store import Results, Run, arrow_schema, replaced
from cowest_bench.store.cards import Card, card_of, feedback_of
from cowest_bench.store.database import stored_runs
from cowest_bench.store.results import Stored
from cowest_bench.store.selection import select

LEFT_OUT = "…"  # stands for a draft whose text is not published


def submit(results: Results, texts: Sequence[str], folder: Path, *, keep_texts: bool) -> list[Path]:
    """Add test runs, with the trainings of their weak models, and return the new files.

    Args:
        results: Where the runs are.
        texts: Which runs, as ``selection.select`` reads them.
        folder: Of the reference results.
        keep_texts: Whether questions, answers, drafts and error messages may be published.

    Raises:
        ConfigError: If there are no such runs, they were already added, or a check fails.
    """
    if broken := problems(folder):
        raise ConfigError(f"{folder} has been changed: {broken[0]} Repair it first.")
    stored = {
        each.run.run_id: each for each in stored_runs({"local": results}, lambda reason: None)
    }
    wanted = _chosen(stored, texts, folder)
    with tempfile.TemporaryDirectory() as packed:
        target = Results(packed)
        for each in wanted.values():
            card = card_of(each.run, [results])
            run, rows = cleaned(each.run), _table(each)
            if card:
                _pack_training(card, stored, target)
            else:
                run = _without_card(run)
            _write(run, rows if keep_texts else _without_texts(rows), target)
        write_index(target.root)
        if broken := problems(target.root):
            raise ConfigError(f"This cannot be submitted: {broken[0]}")
        return _add(target.root, folder)


def _chosen(stored: Mapping[str, Stored], texts: Sequence[str], folder: Path) -> dict[str, Stored]:
    known = [each.run for each in stored.values()]
    runs = [run for text in texts for run in select(known, text)]
    for run in runs:
        if run.split != "test":
            raise ConfigError(
                f"Run {run.run_id} is of the split {run.split}; submit test runs, and their feedback "
                "is added to them."
            )
        if (folder / "runs" / f"{run.run_id}.json").exists():
            raise ConfigError(
                f"Run {run.run_id} is already in {folder}, where files never change; leave it out."
            )
    return {run.run_id: stored[run.run_id] for run in runs}


def _without_card(run: Run) -> Run:
    weak = run.weak and run.weak.model_copy(update={"card": None})
    return run.model_copy(update={"weak": weak})


def _table(each: Stored) -> pyarrow.Table:
    path = each.results.runs / f"{each.run.run_id}.parquet"
    try:
        return pyarrow.parquet.read_table(path).cast(arrow_schema()).combine_chunks()
    except (OSError, ValueError) as error:  # Arrow's are ValueErrors
        raise ConfigError(
            f"The rows of run {each.run.run_id} are not those of this version; remove it and its "
            ".json file and run it again."
        ) from error


def _pack_training(card: Card, stored: Mapping[str, Stored], target: Results) -> None:
    """The card of the weak model's training, and the scores of the feedback behind it."""
    with replaced(target.models / card.name / "card.json") as written:
        written.write_text(canonical(card.content), encoding="utf-8")
    given = feedback_of(card, stored)
    for each in (given.drafts, given.alone, given.judged) if given else ():
        if each and not (target.runs / f"{each.run.run_id}.json").exists():
            _write(_without_card(cleaned(each.run)), _scores_only(_table(each)), target)


def _without_texts(table: pyarrow.Table) -> pyarrow.Table:
    """Rows with blank texts, errors that only say ``error``, and clusters as hashes."""
    labels = table["cluster"].to_pylist()
    kept = {name: table[name] for name in table.column_names if name not in WITH_TEXT}
    kept["error"] = _said(table["error"])
    kept["cluster"] = pyarrow.array(
        [label and hashlib.sha256(label.encode()).hexdigest()[:16] for label in labels],
        pyarrow.string(),
    )
    return _filled(kept, len(table))


def _said(errors: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray:
    """Only that there was an error."""
    return pc.if_else(pc.is_valid(errors), "error", pyarrow.nulls(len(errors), pyarrow.string()))


def _scores_only(table: pyarrow.Table) -> pyarrow.Table:
    """Of feedback: which sample and epoch, whether there was a draft, and what it scored."""
    kept = {name: table[name] for name in ("run_id", "sample_id", "epoch", "score", "gold_logprob")}
    drafted = pc.greater(pc.utf8_length(pc.fill_null(table["draft"], "")), 0)
    nothing = pyarrow.nulls(len(table), pyarrow.string())
    kept["draft"] = pc.if_else(drafted, LEFT_OUT, nothing)
    kept["error"] = _said(table["error"])
    return _filled(kept, len(table))


def _filled(kept: Mapping[str, pyarrow.ChunkedArray], count: int) -> pyarrow.Table:
    """The columns of a run's rows, of which those not kept are empty."""
    blank = {"string": "", "int64": 0}
    columns = [
        kept[field.name]
        if field.name in kept
        else pyarrow.array([None if field.nullable else blank[str(field.type)]] * count, field.type)
        for field in arrow_schema()
    ]
    return pyarrow.table(columns, schema=arrow_schema())


def _write(run: Run, table: pyarrow.Table, target: Results) -> None:
    with replaced(target.runs / f"{run.run_id}.parquet") as path:
        pyarrow.parquet.write_table(table, path, compression="zstd")
    with replaced(target.runs / f"{run.run_id}.json") as path:
        path.write_text(canonical(run.model_dump(mode="json")), encoding="utf-8")


def _add(packed: Path, folder: Path) -> list[Path]:
    """Copy packed files to where there are none yet, the index last."""
    new = []
    for path in files(packed):
        place = folder / path.relative_to(packed)
        if not place.exists():
            new.append((path, place))
        elif place.name == "card.json" and place.read_bytes() != path.read_bytes():
            raise ConfigError(
                f"{place} differs from this card of the training {place.parent.name}; submitted files "
                "never change, so this run cannot be added."
            )
    for path, place in new:
        with replaced(place) as written:
            shutil.copyfile(path, written)
    write_index(folder)
    return [place for _, place in new]
