"""Packs finished runs for the committed reference results (``reference.py``)."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow
import pyarrow.compute as pc
import pyarrow.parquet

from cowest_bench.board.reference import WITH_TEXT, canonical, files, problems, write_index
from cowest_bench.config import ModelSpec
from cowest_bench.errors import ConfigError, RecordError
from cowest_bench.store import Results, Run, arrow_schema, replaced
from cowest_bench.store.cards import card_of, feedback_of
from cowest_bench.store.database import stored_runs
from cowest_bench.store.results import Stored
from cowest_bench.store.rows import LOCAL_OPTIONS
from cowest_bench.store.selection import select

LEFT_OUT = "…"  # stands for a draft whose text is not published


def submit(results: Results, texts: Sequence[str], folder: Path, *, keep_texts: bool) -> list[Path]:
    """Add test runs to a folder, with the trainings of their weak models, and return the new files.

    ``texts`` say which (see ``select``); with ``keep_texts`` questions, answers, drafts and error messages
    are published. A ConfigError if there are none, they were already added, or a check fails.
    """
    if broken := problems(folder):
        raise ConfigError(f"{folder} has been changed: {broken[0]} Repair it first.")
    found = stored_runs({"local": results}, lambda reason: None)
    stored = {each.run.run_id: each for each in found}
    runs = [run for text in texts for run in select([each.run for each in found], text)]
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
    with tempfile.TemporaryDirectory() as packed:
        target = Results(packed)
        for each in (stored[run_id] for run_id in dict.fromkeys(run.run_id for run in runs)):
            table = _table(each)
            card = card_of(each.run, [results])
            _write(each.run, table if keep_texts else _without_texts(table), target, bool(card))
            if card:
                with replaced(target.models / card.name / "card.json") as written:
                    written.write_text(canonical(card.content), encoding="utf-8")
                given = feedback_of(card, stored)
                for one in (given.drafts, given.alone, given.judged) if given else ():
                    if one:
                        _write(one.run, _scores_only(_table(one)), target, with_card=False)
        write_index(target.root)
        if broken := problems(target.root):
            raise ConfigError(f"This cannot be submitted: {broken[0]}")
        return _add(target.root, folder)


def _table(each: Stored) -> pyarrow.Table:
    try:
        return each.results.columns(each.run).cast(arrow_schema()).combine_chunks()
    except (RecordError, ValueError) as error:  # Arrow's are ValueErrors
        raise ConfigError(
            f"The rows of run {each.run.run_id} are not those of this version; remove it and its "
            ".json file and run it again."
        ) from error


def _without_texts(table: pyarrow.Table) -> pyarrow.Table:
    """Rows with blank texts, errors that only say ``error``, and clusters as hashes."""
    clusters = [
        label and hashlib.sha256(label.encode()).hexdigest()[:16]
        for label in table["cluster"].to_pylist()
    ]
    kept = {name: table[name] for name in table.column_names if name not in WITH_TEXT}
    return _filled(table, kept | {"cluster": pyarrow.array(clusters, pyarrow.string())})


def _scores_only(table: pyarrow.Table) -> pyarrow.Table:
    """Of feedback: which sample and epoch, whether there was a draft, and what it scored."""
    kept = {name: table[name] for name in ("run_id", "sample_id", "epoch", "score", "gold_logprob")}
    drafted = pc.greater(pc.utf8_length(pc.fill_null(table["draft"], "")), 0)
    return _filled(table, kept | {"draft": pc.if_else(drafted, LEFT_OUT, _nothing(table))})


def _filled(table: pyarrow.Table, kept: dict[str, Any]) -> pyarrow.Table:
    """A run's rows with some columns; of errors, only that there was one; the others are blank."""
    kept["error"] = pc.if_else(pc.is_valid(table["error"]), "error", _nothing(table))
    for field in arrow_schema():
        if field.name not in kept:
            blank = None if field.nullable else {"string": "", "int64": 0}[str(field.type)]
            kept[field.name] = pyarrow.array([blank] * len(table), field.type)
    return pyarrow.table(kept).select(arrow_schema().names).cast(arrow_schema())


def _nothing(table: pyarrow.Table) -> pyarrow.Array:
    return pyarrow.nulls(len(table), pyarrow.string())


def _write(run: Run, table: pyarrow.Table, target: Results, with_card: bool) -> None:
    """Write a run whose models are named by their folders' names, without log and local options."""
    models: dict[str, object] = {
        role: _nameless(spec, with_card or role != "weak") for role, spec in run.models.items()
    }
    options = {key: value for key, value in run.options.items() if key not in LOCAL_OPTIONS}
    cleaned = run.model_copy(update={**models, "options": options, "log": ""})
    with replaced(target.rows(run)) as path:
        pyarrow.parquet.write_table(table, path, compression="zstd")
    with replaced(target.runs / f"{run.run_id}.json") as path:
        path.write_text(canonical(cleaned.model_dump(mode="json")), encoding="utf-8")


def _nameless(spec: ModelSpec, with_card: bool) -> ModelSpec:
    def without_folder(name: str) -> str:
        local = name.startswith(("/", "./", "../", "~")) or Path(name).is_dir()
        return Path(name).name if local else name

    provider = next((each for each in ("hf/", "vllm/") if spec.name.startswith(each)), "")
    card = f"models/{PurePosixPath(spec.card).parent.name}/card.json" if spec.card else None
    cleaned = {
        "name": provider + without_folder(spec.name.removeprefix(provider)),
        "adapter": spec.adapter and without_folder(spec.adapter),
        "card": card if with_card else None,
    }
    return spec.model_copy(update=cleaned)


def _add(packed: Path, folder: Path) -> list[Path]:
    """Copy packed files to where there are none yet, the index last."""
    new = {}
    for name, path in files(packed).items():
        place = folder / name
        if not place.exists():
            new[place] = path
        elif place.name == "card.json" and place.read_bytes() != path.read_bytes():
            raise ConfigError(
                f"{place} differs from this card of the training {place.parent.name}; submitted files "
                "never change, so this run cannot be added."
            )
    for place, path in new.items():
        with replaced(place) as written:
            shutil.copyfile(path, written)
    write_index(folder)
    return [*new]
