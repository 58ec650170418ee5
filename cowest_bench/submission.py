"""The committed reference results: packing runs for them, and what must hold for their folder.

    results/submitted/
      runs/ID.json, ID.parquet   test runs; and feedback runs, of which only the scores are kept
      models/NAME/card.json      how the weak models of these runs were trained
      index.jsonl                every file with its sha256, sorted by path

It is a results folder as any other, without what belongs to one machine (paths, logs). Files are only
ever added: a number that was published can be traced for good.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as pc
import pyarrow.parquet

from cowest_bench import publication, trainings
from cowest_bench.baseline import NAME
from cowest_bench.config import ModelSpec
from cowest_bench.errors import ConfigError, redacted
from cowest_bench.publication import TEXTS
from cowest_bench.records import Results, Run, arrow_schema, content_hash, replaced
from cowest_bench.selection import select
from cowest_bench.standings import Entry, Stored

INDEX = "index.jsonl"
BESIDE = (INDEX, "README.md")  # files of the folder that the index does not list
LARGEST_FILE = 10 * 2**20  # bytes; more does not belong into git

KEYS = (
    r"\b(?:sk-[A-Za-z0-9_-]{20}|hf_[A-Za-z0-9]{30}|gh[opsu]_[A-Za-z0-9]{30}|AKIA[0-9A-Z]{16}"
    r"|AIza[0-9A-Za-z_-]{35}|xox[abp]-[0-9A-Za-z-]{10}|Bearer [A-Za-z0-9._-]{20})"
)
#: Paths of a machine: at the start of a value, and in a message.
PATHS = r"^(?:~?/[\w.+-]+/|[A-Za-z]:\\|file:/)|/(?:home|root|tmp|Users)/"
TOLD_PATHS = r"(?:^|[\s'\"(=])(?:~?/[\w.+-]+/|[A-Za-z]:\\|file:/)"

WITH_TEXT = (*TEXTS, "cluster", "metrics")


# --- packing --------------------------------------------------------------------------------------


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
            _pack_run(each, target, keep_texts)
            _pack_training(each, stored, results, target)
        _write_index(target.root)
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


def _pack_run(each: Stored, target: Results, keep_texts: bool) -> None:
    """A run without what belongs to this machine."""
    table = _table(each)
    _write(cleaned(each.run), table if keep_texts else _without_texts(table), target)


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
    each: Stored, stored: Sequence[Stored], results: Results, target: Results
) -> None:
    """The card of the weak model's training, and the scores of the feedback behind it."""
    found = trainings.training(each.run, [results])
    if found is None:
        return
    cards = [found.path]
    if merged := trainings.merged_card(each.run, [results]):
        cards.append(merged)
    for path in cards:
        card = json.loads(path.read_text(encoding="utf-8"))
        with replaced(target.models / path.parent.name / "card.json") as written:
            written.write_text(_canonical(card), encoding="utf-8")
    given = trainings.feedback(each.run, found, stored, [results])
    for run in (given.drafts, given.alone) if given else ():
        if not (target.runs / f"{run.run.run_id}.json").exists():
            _write(cleaned(run.run), _scores_only(_table(run)), target)


def cleaned(run: Run) -> Run:
    """A run whose models are named by their folders' names, without log and local options."""
    models: dict[str, Any] = {str(role): _nameless(spec) for role, spec in run.models.items()}
    options = {k: v for k, v in run.options.items() if k not in ("data", "include_path")}
    return run.model_copy(update={**models, "options": options, "log": ""})


def _nameless(spec: ModelSpec) -> ModelSpec:
    card = spec.card and f"models/{PurePosixPath(spec.card).parent.name}/card.json"
    provider = next((each for each in ("hf/", "vllm/") if spec.name.startswith(each)), "")
    name = spec.name.removeprefix(provider)
    if _is_folder(name):
        name = Path(name).name
    adapter = spec.adapter
    if adapter and _is_folder(adapter):
        adapter = Path(adapter).name
    return spec.model_copy(update={"name": provider + name, "adapter": adapter, "card": card})


def _is_folder(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or Path(name).is_dir()


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
        path.write_text(_canonical(run.model_dump(mode="json")), encoding="utf-8")


def _canonical(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _add(packed: Path, folder: Path) -> list[Path]:
    """Copy packed files to where there are none yet, the index last."""
    new = []
    for path in _files(packed):
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
    _write_index(folder)
    return [place for _, place in new]


def _write_index(folder: Path) -> None:
    lines = [
        json.dumps({"path": path.relative_to(folder).as_posix(), "sha256": _sha256(path)})
        for path in _files(folder)
    ]
    with replaced(folder / INDEX) as path:
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _files(folder: Path) -> list[Path]:
    """What the index has to list."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return sorted(
        (path for path in found if path.relative_to(folder).as_posix() not in BESIDE),
        key=lambda path: path.relative_to(folder).as_posix(),
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- checking -------------------------------------------------------------------------------------


def check(folder: Path) -> list[str]:
    """What is wrong with a folder of reference results, a sentence each; nothing if it is sound."""
    if not folder.exists():
        return []
    problems = [*_index_problems(folder)]
    results = Results(folder)
    seen: dict[str, str] = {}
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            problems.append(f"{name} is a link.")
        elif path.stat().st_size > LARGEST_FILE:
            problems.append(f"{name} has more than {LARGEST_FILE:,} bytes.")
        elif re.fullmatch(r"runs/[^/]+\.json", name):
            problems += [f"{name}: {said}" for said in _run_problems(results, path.stem, seen)]
        elif re.fullmatch(r"models/[^/]+/card\.json", name):
            problems += [f"{name}: {said}" for said in _card_problems(path)]
        elif not (
            re.fullmatch(r"runs/[^/]+\.parquet", name) and path.with_suffix(".json").exists()
        ):
            problems.append(f"{name} belongs to no run and no training.")
    return problems


def _index_problems(folder: Path) -> Iterator[str]:
    try:
        lines = (folder / INDEX).read_text(encoding="utf-8").splitlines()
        listed = [(entry["path"], entry["sha256"]) for entry in map(json.loads, lines)]
    except (OSError, ValueError, KeyError, TypeError):
        yield f"{INDEX} cannot be read: it has a JSON with path and sha256 in every line."
        return
    names = [name for name, _ in listed]
    if names != sorted(set(names)):
        yield f"{INDEX} is not sorted, or names a file twice."
    there = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    for name in sorted(there.keys() - set(names)):
        yield f"{name} is not in {INDEX}."
    for name, sha256 in listed:
        if name not in there:
            yield f"{name} is in {INDEX}, but not in the folder."
        elif _sha256(there[name]) != sha256:
            yield f"{name} was changed: its sha256 is not that of {INDEX}."


def _run_problems(results: Results, run_id: str, seen: dict[str, str]) -> Iterator[str]:
    try:
        run = publication.readable(results, run_id)
    except ConfigError as error:
        yield str(error)
        return
    if content_hash(run.identity) != run_id:
        yield "its id is not the hash of its identity."
    same = content_hash([run.identity["data"], Entry.of(run).id, run.identity])
    if same in seen:
        yield f"it is the same as {seen[same]}."
    seen[same] = run_id
    text = (results.runs / f"{run_id}.json").read_text(encoding="utf-8")
    if text != _canonical(cleaned(run).model_dump(mode="json")):
        yield "it is not written as cowest submit writes it."
    yield from _private(run.model_dump(mode="json"))
    if run.weak and run.weak.card and not (results.root / run.weak.card).is_file():
        yield f"there is no {run.weak.card}."
    yield from _row_problems(results, run)


def _row_problems(results: Results, run: Run) -> Iterator[str]:
    try:
        table = pyarrow.parquet.read_table(results.runs / f"{run.run_id}.parquet")
        table.validate(full=True)
    except (OSError, pyarrow.ArrowException):
        yield "its rows cannot be read."
        return
    if not table.schema.equals(arrow_schema()):
        yield "its rows do not have the columns of this version."
        return
    ids, epochs, scores = (table[name].to_numpy() for name in ("sample_id", "epoch", "score"))
    scored = ~np.isnan(scores)
    if (len(ids), int(scored.sum())) != (run.n_total, run.n_scored):
        yield (
            f"it says {run.n_scored} of {run.n_total} answers were scored, its rows "
            f"{int(scored.sum())} of {len(ids)}."
        )
    elif run.n_scored and not np.isclose(scores[scored].mean(), run.score or 0, atol=1e-9):
        yield f"its score is {run.score}, that of its rows {scores[scored].mean()}."
    if len(set(zip(ids.tolist(), epochs.tolist(), strict=True))) < len(ids):
        yield "a question has two rows of one epoch."
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
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        card = None
    if not isinstance(card, dict) or card.get("kind") not in ("sft", "dpo", "merged"):
        yield "it is no card of a training."
        return
    if not NAME.fullmatch(path.parent.name) or not path.parent.name.startswith(card["kind"]):
        yield f"it is of another kind than its folder says: {card['kind']}."
    yield from _private(card)


def _private(content: Any) -> Iterator[str]:
    """Keys and folders of a machine in metadata."""
    for text in _strings(content):
        if re.search(KEYS, text) or redacted(text) != text:
            yield "it holds what looks like a key."
        if re.search(PATHS, text):
            yield f"it names a folder of a machine: {text[:80]!r}."


def _strings(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield str(key)
            yield from _strings(value)
    elif isinstance(content, list):
        for value in content:
            yield from _strings(value)


def rewritten(folder: Path) -> list[str] | None:
    """Files of the folder that were removed or changed after they were committed.

    None where there is no git, or no history of the folder.
    """
    command = ["git", "log", "--no-renames", "--diff-filter=DMT", "--format=", "--name-only", "--"]
    try:
        done = subprocess.run(
            [*command, "."], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return sorted(
        line for line in set(done.stdout.splitlines()) if Path(line).name not in ("", *BESIDE)
    )
