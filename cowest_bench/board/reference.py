"""The committed reference results: their folder, and the checks that it must pass.

    results/submitted/
      runs/ID.json, ID.parquet   test runs; and feedback runs, of which only the scores are kept
      models/NAME/card.json      how the weak models of these runs were trained
      index.jsonl                every file with its sha256, sorted by path

It is an ordinary results folder without local paths and logs. Files are only ever added
(``submission.py``), so a published number stays traceable.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.compute as pc
import pyarrow.parquet

from cowest_bench.errors import RecordError, redacted
from cowest_bench.store import Results, arrow_schema, content_hash, replaced
from cowest_bench.store.cards import read_card
from cowest_bench.store.database import TEXTS, require_fields
from cowest_bench.store.files import FILE_NAME
from cowest_bench.store.records import Entry, Run
from cowest_bench.store.results import read_run
from cowest_bench.store.rows import LOCAL_OPTIONS

INDEX = "index.jsonl"
BESIDE = (INDEX, "README.md", "SCHEMA")  # files of the folder that the index does not list
LARGEST_FILE = 10 * 2**20  # bytes; more does not belong into git

KEYS = (
    r"\b(?:sk-[A-Za-z0-9_-]{20}|hf_[A-Za-z0-9]{30}|gh[opsu]_[A-Za-z0-9]{30}|AKIA[0-9A-Z]{16}"
    r"|AIza[0-9A-Za-z_-]{35}|xox[abp]-[0-9A-Za-z-]{10}|Bearer [A-Za-z0-9._-]{20})"
)
#: Paths of a machine: at the start of a value, and in a message.
PATHS = r"^(?:~?/[\w.+-]+/|\.{1,2}/|[A-Za-z]:\\|file:/)|/(?:home|root|tmp|Users)/"
TOLD_PATHS = r"(?:^|[\s'\"(=])(?:~?/[\w.+-]+/|[A-Za-z]:\\|file:/)"

WITH_TEXT = (*TEXTS, "cluster")


def canonical(content: Mapping[str, object]) -> str:
    """JSON that is the same for the same content, for git; the hashes of files are in the index."""
    kept = {key: value for key, value in content.items() if key not in ("rows_hash", "seal")}
    return json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def files(folder: Path) -> dict[str, Path]:
    """The files that the index lists, by their paths in the folder."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    return {
        name: path
        for name, path in sorted(found.items())
        if name not in BESIDE and (path.is_symlink() or path.is_file())
    }


def write_index(folder: Path) -> None:
    lines = [
        json.dumps({"path": name, "sha256": _sha256(path)}) for name, path in files(folder).items()
    ]
    with replaced(folder / INDEX) as path:
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def problems(folder: Path) -> list[str]:
    """What is wrong with a folder of reference results, a sentence each."""
    there = files(folder)
    found = [*_index_problems(folder, there)] if there or (folder / INDEX).exists() else []
    results = Results(folder)
    seen: dict[str, str] = {}
    for name, path in there.items():
        if path.is_symlink():
            found.append(f"{name} is a link.")
        elif path.stat().st_size > LARGEST_FILE:
            found.append(f"{name} has more than {LARGEST_FILE:,} bytes.")
        elif re.fullmatch(r"runs/[^/]+\.json", name):
            found += [f"{name}: {said}" for said in _run_problems(results, path, seen)]
        elif re.fullmatch(r"models/[^/]+/card\.json", name):
            found += [f"{name}: {said}" for said in _card_problems(path)]
        elif not re.fullmatch(r"runs/[^/]+\.parquet", name) or (
            not path.with_suffix(".json").exists()
        ):
            found.append(f"{name} belongs to no run and no training.")
    return found


def _index_problems(folder: Path, there: Mapping[str, Path]) -> Iterator[str]:
    try:
        lines = (folder / INDEX).read_text(encoding="utf-8").splitlines()
        listed = [(entry["path"], entry["sha256"]) for entry in map(json.loads, lines)]
    except (OSError, ValueError, KeyError, TypeError):
        yield f"{INDEX} cannot be read: every line must be a JSON with path and sha256."
        return
    names = [name for name, _ in listed]
    if names != sorted(set(names)):
        yield f"{INDEX} is not sorted, or names a file twice."
    for name in sorted(there.keys() - set(names)):
        yield f"{name} is not in {INDEX}."
    for name, sha256 in listed:
        if name not in there:
            yield f"{name} is in {INDEX}, but not in the folder."
        elif _sha256(there[name]) != sha256:
            yield f"{name} was changed: its sha256 is not that of {INDEX}."


def _run_problems(results: Results, path: Path, seen: dict[str, str]) -> Iterator[str]:
    try:
        run = read_run(path)
        require_fields(run)
    except RecordError as error:
        yield str(error).replace(f"{results.root}/", "")
        return
    if content_hash(run.identity) != run.run_id:
        yield "its id is not the hash of its identity."
    same = content_hash([run.data, Entry.of(run).id, run.identity])
    if same in seen:
        yield f"it is the same as {seen[same]}."
    seen[same] = run.run_id
    content = run.model_dump(mode="json")
    local = run.log or run.options.keys() & {*LOCAL_OPTIONS}
    if local or path.read_text(encoding="utf-8") != canonical(content):
        yield "it is not written as cowest submit writes it."
    yield from _private(content)
    if run.weak and run.weak.card and not (results.root / run.weak.card).is_file():
        yield f"there is no {run.weak.card}."
    try:
        table = pyarrow.parquet.read_table(results.rows(run))
        table.validate(full=True)
    except (OSError, pyarrow.ArrowException):
        yield "its rows cannot be read."
        return
    if table.schema.equals(arrow_schema()):
        yield from _row_problems(run, table)
    else:
        yield "its rows do not have the columns of this version."


def _row_problems(run: Run, table: pyarrow.Table) -> Iterator[str]:
    ids, epochs, scores = (table[name].to_numpy() for name in ("sample_id", "epoch", "score"))
    scored = ~np.isnan(scores)
    n_scored = int(scored.sum())
    if (len(ids), n_scored) != (run.n_total, run.n_scored):
        yield (
            f"it says {run.n_scored} of {run.n_total} answers were scored, its rows "
            f"{n_scored} of {len(ids)}."
        )
    elif run.n_scored and not np.isclose(scores[scored].mean(), run.score or 0, atol=1e-9):
        yield f"its score is {run.score}, that of its rows {scores[scored].mean()}."
    if len(set(zip(ids.tolist(), epochs.tolist(), strict=True))) < len(ids):
        yield "a sample has two rows of one epoch."
    if pc.any(pc.not_equal(table["run_id"], run.run_id)).as_py():
        yield "rows of another run are among its rows."
    if pc.any(pc.equal(pc.is_null(table["score"]), pc.is_null(table["error"]))).as_py():
        yield "a row has both a score and an error, or neither."
    for name in WITH_TEXT:
        if pc.any(pc.match_substring_regex(table[name], KEYS)).as_py():
            yield f"its {name} column holds what looks like a key."
    if pc.any(pc.match_substring_regex(table["error"], TOLD_PATHS)).as_py():
        yield "a message of an error names a folder of a machine; submit it with --no-texts."


def _card_problems(path: Path) -> Iterator[str]:
    card = read_card(path)
    if card is None:
        yield "it is not the card of a training."
        return
    if not FILE_NAME.fullmatch(card.name) or not card.name.startswith(card.kind):
        yield f"its kind {card.kind} is not the one that its folder says."
    yield from _private(card.content)


def _private(content: object) -> Iterator[str]:
    """Keys and folders of a machine in metadata."""
    if isinstance(content, Mapping):
        for pair in content.items():
            yield from _private([*pair])
    elif isinstance(content, list):
        for value in content:
            yield from _private(value)
    elif isinstance(content, str):
        if re.search(KEYS, content) or redacted(content) != content:
            yield "it holds what looks like a key."
        if re.search(PATHS, content):
            yield f"it names a folder of a machine: {content[:80]!r}."
