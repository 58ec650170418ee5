"""Data: the three public data sets, from the hub or from local files, in the form lm-eval reads.

Each ``load_*`` is the ``custom_dataset`` of a task file. lm-eval calls it with the task's metadata, of
which it reads ``data``, ``feedback_size`` and ``dev_size``; it raises a TaskError if the data cannot be
reached or used. The rows come from the folder ``data``, else from ``COWEST_DATA``, else from the Hugging
Face hub. A folder contains ``ifqa/``, ``medmcqa/`` and ``prosocial_dialog/`` with ``train.jsonl``,
``validation.jsonl`` and ``test.jsonl`` in the fields of the hub's versions.

Training rows whose question is also in test are dropped and counted (``Splits.leaks``). Splits that a
data set lacks are carved from train: at most ``feedback_size`` rows and a quarter for feedback, at most
``dev_size`` rows and an eighth for dev. A dev split that exists is cut to ``dev_size`` rows. All of this
uses a hash of what rows share, so it depends neither on the order of the rows nor on a random generator.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cowest_bench.errors import TaskError
from cowest_bench.tasks.answers import LABELS, LETTERS, label_in_words, plain_words

Row = dict[str, Any]

FEEDBACK_SIZE, FEEDBACK_SHARE = 2_000, 1 / 4
DEV_SIZE, DEV_SHARE = 1_000, 1 / 8
KNOWLEDGE_LENGTH = 1_500  # characters of background in an SFT target, so that targets stay short


class Splits(dict[str, Any]):
    """Data sets by split: those of train, feedback, dev and test that have rows.

    Attributes:
        leaks: Number of rows dropped from each official split because their question is also in test.
    """

    leaks: dict[str, int]


@dataclass(frozen=True)
class Source:
    """A data set as it is published, and how its splits serve here.

    Attributes:
        name: Folder of its local files.
        hub: Its name on the Hugging Face hub.
        row: Checks a row, and prepares it; a ValueError says what is wrong.
        complete: Adds to the rows of a split what follows from other rows.
        test: The official split that is test here.
        dev: The official split that dev is cut from; None if dev is carved from train.
        question: What a row asks; a row of train that asks a question of test is dropped.
        cluster: What rows share that must be in the same split.
    """

    name: str
    hub: str
    row: Callable[[Row], Row]
    test: str
    dev: str | None
    question: Callable[[Row], str]
    cluster: Callable[[Row], str]
    complete: Callable[[Mapping[str, list[Row]]], None] = lambda official: None


def load_ifqa(**metadata: Any) -> Splits:
    """IfQA (Yu et al., EMNLP 2023): counterfactual questions with several accepted answers.

    Adds to each row ``knowledge``, the evidence cut to ``KNOWLEDGE_LENGTH``, and ``passage``, a name for
    the passages that it shares with other rows.
    """
    return _load(IFQA, **metadata)


def load_medmcqa(**metadata: Any) -> Splits:
    """MedMCQA (Pal et al., CHIL 2022): medical entrance questions with four options.

    The official test split has no labels, so test is the validation split and dev is carved from train.
    Adds to each row ``answer``, the gold letter, and ``knowledge``, the explanation cut to
    ``KNOWLEDGE_LENGTH``.
    """
    return _load(MEDMCQA, **metadata)


def load_prosocial_dialog(**metadata: Any) -> Splits:
    """ProsocialDialog (Kim et al., EMNLP 2022): how much care a user's message needs.

    Adds to each row ``dialogue``, the conversation up to the message as text (from earlier rows of the
    same dialogue, if there are any); ``opening``, its first message; ``answer``, the label in words; and
    ``knowledge``, the rules of thumb.
    """
    return _load(PROSOCIAL_DIALOG, **metadata)


def _load(
    source: Source,
    data: str | None = None,
    feedback_size: int = FEEDBACK_SIZE,
    dev_size: int = DEV_SIZE,
    **_: Any,
) -> Splits:
    for option, size in {"feedback_size": feedback_size, "dev_size": dev_size}.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise TaskError(f"{option} is {size!r}, but must be a whole number, such as 1000.")
    chosen = data or os.environ.get("COWEST_DATA")
    folder = Path(chosen).expanduser() / source.name if chosen else None
    files = sorted(folder.glob("*.jsonl")) if folder else []
    state = tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    return _built(source, folder, state, feedback_size, dev_size)


@lru_cache(maxsize=3)
def _built(
    source: Source,
    folder: Path | None,
    state: tuple[tuple[str, int, int], ...],
    feedback_size: int,
    dev_size: int,
) -> Splits:
    """Cached, because all splits of a task need it and MedMCQA's 187,000 rows take seconds."""
    official = _read(source, folder)
    source.complete(official)
    return _splits(source, official, feedback_size, dev_size)


# --- rows -----------------------------------------------------------------------------------------


def _ifqa_row(row: Row) -> Row:
    answers = _field(row, "answers", list)
    if not answers or not all(isinstance(answer, str) and answer.strip() for answer in answers):
        raise ValueError("its field answers is not a list of texts")
    context = _field(row, "context", list, optional=True) or []
    return {
        "question": _field(row, "question", str),
        "answers": answers,
        "context": [str(passage) for passage in context],
        "knowledge": _shorten("\n".join(map(str, context))),
    }


def _medmcqa_row(row: Row) -> Row:
    cop = _field(row, "cop", int)
    if cop not in range(len(LETTERS)):
        raise ValueError("its field cop is not 0, 1, 2 or 3")
    texts = ("id", "choice_type", "exp", "subject_name", "topic_name")
    optional = {name: _field(row, name, str, optional=True) for name in texts}
    return {
        "question": _field(row, "question", str),
        **{f"op{letter}": _field(row, f"op{letter}", str) for letter in LETTERS.lower()},
        "cop": cop,
        "answer": LETTERS[cop],
        **optional,
        "knowledge": _shorten(optional["exp"] or ""),
    }


def _prosocial_dialog_row(row: Row) -> Row:
    label = _field(row, "safety_label", str)
    if label_in_words(label) not in LABELS:
        raise ValueError(f"its field safety_label is none of: {', '.join(LABELS)}")
    rots = _field(row, "rots", list, optional=True) or []
    dialogue = row.get("dialogue_id")
    return {
        "context": _field(row, "context", str),
        "response": _field(row, "response", str, optional=True),
        "rots": [str(rot) for rot in rots],
        "safety_label": label,
        "answer": label_in_words(label),
        "dialogue_id": "" if dialogue is None else str(dialogue),
        "response_id": _field(row, "response_id", int, optional=True) or 0,
        "knowledge": _shorten("\n".join(map(str, rots))),
    }


def _field(row: Row, name: str, kind: type, *, optional: bool = False) -> Any:
    value = row.get(name)
    if value is None and optional:
        return None
    if not isinstance(value, kind):
        raise ValueError(f"its field {name} is not {_KINDS[kind]}")  # noqa: TRY004 - not a bug
    return value


_KINDS = {str: "a text", int: "a whole number", list: "a list"}


def _shorten(text: str) -> str:
    """The text cut to ``KNOWLEDGE_LENGTH`` between words."""
    text = text.strip()
    return text if len(text) <= KNOWLEDGE_LENGTH else text[:KNOWLEDGE_LENGTH].rsplit(maxsplit=1)[0]


def _name_passages(official: Mapping[str, list[Row]]) -> None:
    """Give each row a name for the passages that it shares, directly or through other rows."""
    rows = [row for split in official.values() for row in split]
    parent: dict[str, str] = {}

    def root(passage: str) -> str:
        while parent.setdefault(passage, passage) != passage:
            parent[passage] = passage = parent[parent[passage]]
        return passage

    for row in rows:
        # The smallest passage becomes the root, so that names do not depend on the order of the rows.
        roots = sorted({root(passage) for passage in row["context"]})
        for other in roots[1:]:
            parent[other] = roots[0]
    for row in rows:
        row["passage"] = _hash(root(row["context"][0])) if row["context"] else ""


def _add_history(official: Mapping[str, list[Row]]) -> None:
    """Give each row the conversation up to its message."""
    dialogues: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for split, rows in official.items():
        for row in rows:
            # A row without a dialogue id is its own conversation.
            dialogues[split, row["dialogue_id"] or f"row {id(row)}"].append(row)
    for turns in dialogues.values():
        said: list[str] = []
        turns.sort(key=lambda row: row["response_id"])
        for row in turns:
            row["dialogue"] = "\n".join([*said, f"User: {row['context'].strip()}"])
            row["opening"] = turns[0]["context"]
            said.append(f"User: {row['context'].strip()}")
            if row["response"]:
                said.append(f"Assistant: {row['response'].strip()}")


IFQA = Source(
    name="ifqa",
    hub="jeggers/ifqa",
    row=_ifqa_row,
    complete=_name_passages,
    test="test",
    dev="validation",
    question=lambda row: row["question"],
    cluster=lambda row: row["passage"],
)
MEDMCQA = Source(
    name="medmcqa",
    hub="openlifescienceai/medmcqa",
    row=_medmcqa_row,
    test="validation",
    dev=None,
    question=lambda row: row["question"],
    cluster=lambda row: _asked(row["question"]),
)
PROSOCIAL_DIALOG = Source(
    name="prosocial_dialog",
    hub="allenai/prosocial-dialog",
    row=_prosocial_dialog_row,
    complete=_add_history,
    test="test",
    dev="validation",
    # A dialogue that opens like one of test is dropped whole: its later turns show that message.
    question=lambda row: row["opening"],
    cluster=lambda row: row["dialogue_id"] or row["opening"],
)


# --- splits ---------------------------------------------------------------------------------------


def _splits(
    source: Source, official: Mapping[str, list[Row]], feedback_size: int, dev_size: int
) -> Splits:
    """Drop leaks, carve the splits that are missing, and return those that have rows."""
    from datasets import Dataset

    asked = {_asked(source.question(row)) for row in official[source.test]}
    clean = {
        name: [row for row in rows if _asked(source.question(row)) not in asked]
        for name, rows in official.items()
        if name != source.test
    }
    train = clean["train"]
    wanted = {"feedback": max(1, min(feedback_size, int(FEEDBACK_SHARE * len(train))))}
    if source.dev is None:
        wanted["dev"] = max(1, min(dev_size, int(DEV_SHARE * len(train))))
    rows = carve(train, source.cluster, wanted) | {"test": official[source.test]}
    if source.dev is not None:
        rows["dev"] = carve(clean[source.dev], source.cluster, {"dev": dev_size})["dev"]
    names = ("train", "feedback", "dev", "test")
    splits = Splits({name: Dataset.from_list(rows[name]) for name in names if rows[name]})
    splits.leaks = {name: len(official[name]) - len(kept) for name, kept in clean.items()}
    return splits


def carve(
    rows: list[Row], cluster: Callable[[Row], str], sizes: Mapping[str, int]
) -> dict[str, list[Row]]:
    """Divide train into splits: whole clusters, in the order of their hash, until a split is full.

    Args:
        rows: All rows of train; each split keeps their order.
        cluster: What rows share if they must be in one split; a row without it is its own cluster.
        sizes: Most rows of each split.

    Returns:
        The splits by name, and the rest as ``train``.
    """
    keys = [cluster(row) or json.dumps(row, sort_keys=True) for row in rows]
    members: dict[str, int] = defaultdict(int)
    for key in keys:
        members[key] += 1
    order = sorted(members, key=_hash)
    home: dict[str, str] = {}
    for split, size in sizes.items():
        room = size
        for key in order:
            if key not in home and members[key] <= room:
                home[key] = split
                room -= members[key]
    parts: dict[str, list[Row]] = {name: [] for name in ("train", *sizes)}
    for key, row in zip(keys, rows, strict=True):
        parts[home.get(key, "train")].append(row)
    return parts


def _asked(question: str) -> str:
    """A question without case, punctuation and spacing."""
    return plain_words(question) or question


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- reading --------------------------------------------------------------------------------------


def _read(source: Source, folder: Path | None) -> dict[str, list[Row]]:
    """The rows of the official splits, checked and prepared."""
    official = dict.fromkeys(filter(None, ("train", source.dev, source.test)))
    if folder:
        found = {split: _lines(folder / f"{split}.jsonl") for split in official}
    else:
        loaded = _hub(source.hub, official)
        found = {
            split: ((f"{source.hub} {split} row {i}", row) for i, row in enumerate(rows))
            for split, rows in loaded.items()
        }
    read = {
        split: [_checked(where, row, source.row) for where, row in rows]
        for split, rows in found.items()
    }
    if empty := [split for split, rows in read.items() if not rows]:
        where = folder or source.hub
        raise TaskError(f"The {empty[0]} split of {source.name} ({where}) has no rows.")
    return read


def _checked(where: str, row: Any, prepared: Callable[[Row], Row]) -> Row:
    if not isinstance(row, dict):
        raise TaskError(f"{where} is not a JSON object; write one row per line.")
    try:
        return prepared(row)
    except ValueError as error:
        raise TaskError(f"{where} cannot be used: {error}.") from error


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise TaskError(
            f"There is no readable {path} ({error.strerror}); --data or COWEST_DATA must name a "
            "folder with ifqa/, medmcqa/ and prosocial_dialog/, each with train.jsonl, "
            "validation.jsonl and test.jsonl."
        ) from error
    except UnicodeDecodeError as error:
        raise TaskError(f"{path} is not UTF-8 text at byte {error.start}.") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield f"{path} line {number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise TaskError(f"{path} line {number} is not valid JSON: {error.msg}.") from error


def _hub(hub: str, splits: Iterable[str]) -> dict[str, Any]:
    import datasets

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # else one line per retry
    try:
        loaded = datasets.load_dataset(hub)
        return {split: loaded[split] for split in splits}
    except Exception as error:  # the hub's client raises many kinds
        raise TaskError(
            f"The data set {hub} cannot be loaded from the Hugging Face hub "
            f"({type(error).__name__}); give local files with --data DIR or set COWEST_DATA."
        ) from error
