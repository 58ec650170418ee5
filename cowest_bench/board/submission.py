"""Packs finished runs for the committed reference results (``reference.py``)."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute as pc
import pyarrow.parquet

from cowest_bench.board import publication, trainings
from cowest_bench.board.reference import WITH_TEXT, canonical, check, cleaned, files, write_index
from cowest_bench.board.standings import Stored
from cowest_bench.errors import ConfigError
from cowest_bench.store import Results, Run, arrow_schema, replaced
from cowest_bench.store.selection import select


def submit(results: Results, texts: Sequence[str], folder: Path, *, keep_texts: bool) -> list[Path]:
    """Add test runs, with what their weak models came from, and return the new files.

    Args:
        results: Where the runs are.
        texts: Which runs, as ``selection.select`` reads them.
        folder: Of the reference results.
        keep_texts: Whether questions, answers, drafts and messages of errors may be published.

    Raises:
        ConfigError: If there are no such runs, they are there already, what they would add is not
            sound, or the folder is not.
    """
    if broken := check(folder):
        raise ConfigError(f"{folder} is not as it was submitted: {broken[0]} Mend that first.")
    stored = publication.finished({"local": results}, lambda sentence: None)
    wanted = _chosen(stored, texts, folder)
    with tempfile.TemporaryDirectory() as packed:
        target = Results(packed)
        for each in wanted.values():
            found = trainings.training(each.run, [results])
            _pack_run(each, target, keep_texts, trained=found is not None)
            if found:
                _pack_training(each, found, stored, results, target)
        write_index(target.root)
        if broken := check(target.root):
            raise ConfigError(f"This cannot be submitted: {broken[0]}")
        return _add(target.root, folder)


def _chosen(stored: Sequence[Stored], texts: Sequence[str], folder: Path) -> dict[str, Stored]:
    by_id = {each.run.run_id: each for each in stored}
    runs = [run for text in texts for run in select([e.run for e in stored], text)]
    for run in runs:
        if run.split != "test":
            raise ConfigError(
                f"Run {run.run_id} is of the split {run.split}; submit test runs: the feedback that "
                "they came from goes along."
            )
        if (folder / "runs" / f"{run.run_id}.json").exists():
            raise ConfigError(
                f"Run {run.run_id} is in {folder} already, where files never change; leave it out."
            )
    return {run.run_id: by_id[run.run_id] for run in runs}


def _pack_run(each: Stored, target: Results, keep_texts: bool, trained: bool) -> None:
    """A run without what belongs to this machine, and without a card that is not there."""
    run, table = cleaned(each.run), _table(each)
    run = run if trained else _without_card(run)
    _write(run, table if keep_texts else _without_texts(table), target)


def _without_card(run: Run) -> Run:
    weak = run.weak and run.weak.model_copy(update={"card": None})
    return run.model_copy(update={"weak": weak})


def _table(each: Stored) -> Any:
    path = each.results.runs / f"{each.run.run_id}.parquet"
    try:
        return pyarrow.parquet.read_table(path).cast(arrow_schema()).combine_chunks()
    except (OSError, ValueError) as error:  # Arrow's are ValueErrors
        raise ConfigError(
            f"The rows of run {each.run.run_id} are not those of this version; remove it and its "
            ".json file and run it again."
        ) from error


def _pack_training(
    each: Stored,
    found: trainings.Training,
    stored: Sequence[Stored],
    results: Results,
    target: Results,
) -> None:
    """The card of the weak model's training, and the scores of the feedback behind it."""
    cards = [found.path]
    if merged := trainings.merged_card(each.run, [results]):
        cards.append(merged)
    for path in cards:
        card = json.loads(path.read_text(encoding="utf-8"))
        with replaced(target.models / path.parent.name / "card.json") as written:
            written.write_text(canonical(card), encoding="utf-8")
    given = trainings.feedback(each.run, found, stored, [results])
    for run in (given.drafts, given.alone) if given else ():
        if not (target.runs / f"{run.run.run_id}.json").exists():
            _write(_without_card(cleaned(run.run)), _scores_only(_table(run)), target)


def _without_texts(table: Any) -> Any:
    """Rows whose texts are blank, whose errors say only that, and whose clusters are hashes."""
    labels = table["cluster"].to_pylist()
    kept = {name: table[name] for name in table.column_names if name not in WITH_TEXT}
    kept["error"] = _said(table["error"])
    kept["cluster"] = pyarrow.array(
        [label and hashlib.sha256(label.encode()).hexdigest()[:16] for label in labels],
        pyarrow.string(),
    )
    return _filled(kept, len(table))


def _said(errors: Any) -> Any:
    """That there was an error."""
    return pc.if_else(pc.is_valid(errors), "error", pyarrow.nulls(len(errors), pyarrow.string()))


def _scores_only(table: Any) -> Any:
    """Of feedback: which question and epoch, whether there was a draft, and what it scored."""
    kept = {name: table[name] for name in ("run_id", "sample_id", "epoch", "score", "gold_logprob")}
    drafted = pc.greater(pc.utf8_length(pc.fill_null(table["draft"], "")), 0)
    nothing = pyarrow.nulls(len(table), pyarrow.string())
    kept["draft"] = pc.if_else(drafted, trainings.LEFT_OUT, nothing)
    kept["error"] = _said(table["error"])
    return _filled(kept, len(table))


def _filled(kept: Mapping[str, Any], count: int) -> Any:
    """The columns of a run's rows, of which those not kept are empty."""
    blank = {"string": "", "int64": 0}
    columns = [
        kept[field.name]
        if field.name in kept
        else pyarrow.array([None if field.nullable else blank[str(field.type)]] * count, field.type)
        for field in arrow_schema()
    ]
    return pyarrow.table(columns, schema=arrow_schema())


def _write(run: Run, table: Any, target: Results) -> None:
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
                f"{place} says something else of the training {place.parent.name}; submitted files "
                "never change, so that this run cannot be added."
            )
    for path, place in new:
        with replaced(place) as written:
            shutil.copyfile(path, written)
    write_index(folder)
    return [place for _, place in new]
