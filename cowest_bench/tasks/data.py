"""Data: the three public data sets, from the hub or from local files, in the form lm-eval reads.

Each ``load_*`` is the ``custom_dataset`` of a task file; lm-eval calls it with the task's metadata.
The rows come from ``data`` (the task option), else from ``COWEST_DATA``, else from the Hugging Face
hub. A folder contains ``ifqa/``, ``medmcqa/`` and ``prosocial_dialog/`` with ``train.jsonl``,
``validation.jsonl`` and ``test.jsonl`` in the fields of the hub's versions.

Training rows whose question is also in test are dropped and counted (``Splits.leaks``). Splits that a
data set lacks are carved from train, and a dev split that would take long to score is cut. Both use a
hash of what rows share, so the splits depend neither on the order of the rows nor on a random generator.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from cowest_bench.errors import TaskError
from cowest_bench.tasks.answers import LABELS, LETTERS, label_in_words, plain_words

Row = dict[str, Any]

HUB = {
    "ifqa": "jeggers/ifqa",
    "medmcqa": "openlifescienceai/medmcqa",
    "prosocial_dialog": "allenai/prosocial-dialog",
}
FEEDBACK_SIZE, FEEDBACK_SHARE = 2_000, 1 / 4
DEV_SIZE, DEV_SHARE = 1_000, 1 / 8
KNOWLEDGE_LENGTH = 1_500  # characters of background in an SFT target, so that targets stay short


class Splits(dict[str, Any]):
    """Data sets by split: those of train, feedback, dev and test that have rows.

    Attributes:
        leaks: Number of rows dropped from each official split because their question is also in test.
    """

    leaks: dict[str, int]


def load_ifqa(
    data: str | None = None,
    feedback_size: int = FEEDBACK_SIZE,
    dev_size: int = DEV_SIZE,
    **_: Any,
) -> Splits:
    """IfQA (Yu et al., EMNLP 2023): counterfactual questions with several accepted answers.

    Adds to each row ``knowledge``, the evidence cut to ``KNOWLEDGE_LENGTH``, and ``passage``, a name for
    the passages that it shares with other rows.

    Args:
        data: Folder of local files instead of ``COWEST_DATA`` or the hub.
        feedback_size: Most rows of train that become the feedback split; never more than a quarter.
        dev_size: Most rows of the validation split that become the dev split.

    Raises:
        TaskError: If the data cannot be reached or read.
    """
    return _load(_ifqa, "ifqa", data, feedback_size, dev_size)


def _ifqa(folder: Path | None, feedback_size: int, dev_size: int) -> Splits:
    official = _read("ifqa", ("train", "validation", "test"), folder, _ifqa_row)
    _name_passages([row for rows in official.values() for row in rows])
    return _splits(
        official,
        test="test",
        dev="validation",
        question=lambda row: row["question"],
        cluster=lambda row: row["passage"],
        sizes=(feedback_size, dev_size),
    )


def load_medmcqa(
    data: str | None = None,
    feedback_size: int = FEEDBACK_SIZE,
    dev_size: int = DEV_SIZE,
    **_: Any,
) -> Splits:
    """MedMCQA (Pal et al., CHIL 2022): medical entrance questions with four options.

    The official test split has no labels, so test is the validation split and dev is carved from train.
    Adds to each row ``answer``, the gold letter, and ``knowledge``, the explanation cut to
    ``KNOWLEDGE_LENGTH``.

    Args:
        data: Folder of local files instead of ``COWEST_DATA`` or the hub.
        feedback_size: Most rows of train that become the feedback split; never more than a quarter.
        dev_size: Most rows of train that become the dev split; never more than an eighth.

    Raises:
        TaskError: If the data cannot be reached or read.
    """
    return _load(_medmcqa, "medmcqa", data, feedback_size, dev_size)


def _medmcqa(folder: Path | None, feedback_size: int, dev_size: int) -> Splits:
    return _splits(
        _read("medmcqa", ("train", "validation"), folder, _medmcqa_row),
        test="validation",
        dev=None,
        question=lambda row: row["question"],
        cluster=lambda row: plain_words(row["question"]) or row["question"],
        sizes=(feedback_size, dev_size),
    )


def load_prosocial_dialog(
    data: str | None = None,
    feedback_size: int = FEEDBACK_SIZE,
    dev_size: int = DEV_SIZE,
    **_: Any,
) -> Splits:
    """ProsocialDialog (Kim et al., EMNLP 2022): how much care a user's message needs.

    Adds to each row ``dialogue``, the conversation up to the message as text (from earlier rows of the
    same dialogue, if there are any); ``opening``, its first message; ``answer``, the label in words; and
    ``knowledge``, the rules of thumb.

    Args:
        data: Folder of local files instead of ``COWEST_DATA`` or the hub.
        feedback_size: Most rows of train that become the feedback split; never more than a quarter.
        dev_size: Most rows of the validation split that become the dev split.

    Raises:
        TaskError: If the data cannot be reached or read.
    """
    return _load(_prosocial_dialog, "prosocial_dialog", data, feedback_size, dev_size)


def _prosocial_dialog(folder: Path | None, feedback_size: int, dev_size: int) -> Splits:
    official = _read(
        "prosocial_dialog", ("train", "validation", "test"), folder, _prosocial_dialog_row
    )
    for rows in official.values():
        _add_history(rows)
    return _splits(
        official,
        test="test",
        dev="validation",
        # A dialogue that opens like one of test is dropped whole: its later turns show that message.
        question=lambda row: row["opening"],
        cluster=lambda row: row["dialogue_id"] or row["opening"],
        sizes=(feedback_size, dev_size),
    )


def _load(
    build: Callable[[Path | None, int, int], Splits],
    name: str,
    data: str | None,
    feedback_size: int,
    dev_size: int,
) -> Splits:
    sizes = {"feedback_size": feedback_size, "dev_size": dev_size}
    for option, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise TaskError(f"{option} is {size!r}, but must be a whole number, such as 1000.")
    chosen = data or os.environ.get("COWEST_DATA")
    folder = Path(chosen).expanduser() / name if chosen else None
    files = sorted(folder.glob("*.jsonl")) if folder else []
    state = tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    return _built(build, folder, state, feedback_size, dev_size)


@lru_cache(maxsize=3)
def _built(
    build: Callable[[Path | None, int, int], Splits],
    folder: Path | None,
    state: tuple[tuple[str, int, int], ...],
    feedback_size: int,
    dev_size: int,
) -> Splits:
    """Cached, because all splits of a task need it and MedMCQA's 187,000 rows take seconds."""
    return build(folder, feedback_size, dev_size)


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


def _name_passages(rows: list[Row]) -> None:
    """Give each row a name for the passages that it shares, directly or through other rows."""
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


def _add_history(rows: list[Row]) -> None:
    """Give each row the conversation up to its message."""
    dialogues: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        # A row without a dialogue id is its own conversation.
        dialogues[row["dialogue_id"] or f"row {id(row)}"].append(row)
    for turns in dialogues.values():
        said: list[str] = []
        turns.sort(key=lambda row: row["response_id"])
        for row in turns:
            row["dialogue"] = "\n".join([*said, f"User: {row['context'].strip()}"])
            row["opening"] = turns[0]["context"]
            said.append(f"User: {row['context'].strip()}")
            if row["response"]:
                said.append(f"Assistant: {row['response'].strip()}")


# --- splits ---------------------------------------------------------------------------------------


def _splits(
    official: Mapping[str, list[Row]],
    *,
    test: str,
    dev: str | None,
    question: Callable[[Row], str],
    cluster: Callable[[Row], str],
    sizes: tuple[int, int],
) -> Splits:
    """Drop leaks, carve the splits that are missing, and return those that have rows."""
    from datasets import Dataset

    asked = {_asked(question(row)) for row in official[test]}
    clean = {
        name: [row for row in rows if _asked(question(row)) not in asked]
        for name, rows in official.items()
        if name != test
    }
    train = clean["train"]
    wanted = {"feedback": max(1, min(sizes[0], int(FEEDBACK_SHARE * len(train))))}
    if dev is None:
        wanted["dev"] = max(1, min(sizes[1], int(DEV_SHARE * len(train))))
    rows = carve(train, cluster, wanted) | {"test": official[test]}
    if dev is not None:
        rows["dev"] = carve(clean[dev], cluster, {"dev": sizes[1]})["dev"]
    splits = Splits(
        {
            name: Dataset.from_list(rows[name])
            for name in ("train", "feedback", "dev", "test")
            if rows[name]
        }
    )
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


def _read(
    name: str, splits: Iterable[str], folder: Path | None, prepared: Callable[[Row], Row]
) -> dict[str, list[Row]]:
    """The rows of the official splits, checked and prepared."""
    found: Mapping[str, Iterable[tuple[str, Any]]]
    if folder:
        found = {split: _lines(folder / f"{split}.jsonl") for split in splits}
    else:
        hub = _hub(name, splits)
        found = {
            split: ((f"{HUB[name]} {split} row {i}", row) for i, row in enumerate(hub[split]))
            for split in splits
        }
    read = {
        split: [_checked(where, row, prepared) for where, row in found[split]] for split in splits
    }
    if empty := [split for split, rows in read.items() if not rows]:
        raise TaskError(f"The {empty[0]} split of {name} ({folder or HUB[name]}) has no rows.")
    return read


def _checked(where: str, row: Any, prepared: Callable[[Row], Row]) -> Row:
    if not isinstance(row, dict):
        raise TaskError(f"{where} is not a JSON object; write one row per line.")
    try:
        return prepared(row)
    except ValueError as error:
        raise TaskError(f"{where} cannot be used: {error}.") from error


def _lines(path: Path) -> Iterable[tuple[str, Any]]:
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


def _hub(name: str, splits: Iterable[str]) -> dict[str, Any]:
    import datasets

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # else one line per retry
    try:
        loaded = datasets.load_dataset(HUB[name])
        return {split: loaded[split] for split in splits}
    except Exception as error:  # the hub's client raises many kinds
        raise TaskError(
            f"The data set {HUB[name]} cannot be loaded from the Hugging Face hub "
            f"({type(error).__name__}); give local files with --data DIR or set COWEST_DATA."
        ) from error
