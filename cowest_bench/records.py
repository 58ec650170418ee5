"""What a finished evaluation leaves behind: one JSON (the run) and one Parquet file (its samples).

Both are written under a temporary name and put in place with an atomic rename, the JSON last, so that a
run either is there as a whole or not at all; any number of processes may write side by side. A sample
that could not be scored has a row with its error and no score: an error is neither a zero nor a gap.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cowest_bench.config import ROLES, ModelSpec, Role
from cowest_bench.errors import ComparisonError, ConfigError

SCHEMA_VERSION = 1
NOT_ASKED = "not asked yet"  # the error of an answer that was left for later on purpose


@dataclass(frozen=True, slots=True)
class SampleScore:
    """One question, once answered: a row of a run's Parquet file.

    ``score`` is the task's primary metric (0 is wrong), None if there is none because of ``error``.
    ``metrics`` is JSON. Log-probabilities are in nats, costs in US dollars. Tokens are as the server
    counts them, None where it does not say, of the attempt that is recorded; ``draft`` is the first, ``output`` the last of a task's
    ``repeats``.
    """

    run_id: str
    sample_id: int
    epoch: int
    cluster: str | None
    question: str
    gold: str
    draft: str | None = None
    output: str | None = None
    answer: str | None = None
    score: float | None = None
    metrics: str | None = None
    gold_logprob: float | None = None
    error: str | None = None
    weak_calls: int = 0
    weak_input_tokens: int | None = 0
    weak_output_tokens: int | None = 0
    weak_seconds: float | None = None
    weak_cost: float | None = None
    strong_calls: int = 0
    strong_input_tokens: int | None = 0
    strong_output_tokens: int | None = 0
    strong_seconds: float | None = None
    strong_cost: float | None = None
    evaluator_calls: int = 0
    evaluator_input_tokens: int | None = 0
    evaluator_output_tokens: int | None = 0
    evaluator_seconds: float | None = None
    evaluator_cost: float | None = None
    cost: float | None = None


class Run(BaseModel):
    """One finished cell: a task's split under one system, with what it depended on."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = SCHEMA_VERSION
    run_id: str
    """Hash of ``identity``: a rerun is a cache hit, and changed weights never reuse old answers."""
    task: str
    domain: str
    suite: str | None = None
    """Name that the task shares with others which are shown beside it."""
    split: str
    options: dict[str, Any] = Field(default_factory=dict)
    """What was passed on to the task, such as ``seed`` or ``data``."""
    system: str
    format: str | None = None
    """How the weak model helped, a key of ``prompts.FORMATS``."""
    weak: ModelSpec | None
    strong: ModelSpec | None
    evaluator: ModelSpec | None = None
    reported: dict[str, list[str]] = Field(default_factory=dict)
    """Which models endpoints said had answered, by role: a name may stand for another tomorrow."""
    seed: int
    epochs: int
    control: str | None = None
    """What was done to the drafts on purpose, if anything, such as ``shuffled``."""
    n_total: int
    """Answers asked for: questions times epochs."""
    n_scored: int
    score: float | None
    """Mean of the primary metric over what was scored."""
    metrics: dict[str, float]
    """All metrics as lm-eval aggregates them; with several epochs, of the first."""
    attempts: int = 1
    """How often it was asked for what it still lacked, the first time included."""
    seconds: float
    created: datetime = Field(default_factory=lambda: datetime.now(UTC))
    identity: dict[str, Any]
    """Everything that can change the number."""
    log: str
    """Inspect's log of the run, relative to the results folder."""

    @property
    def models(self) -> dict[Role, ModelSpec]:
        """The models that took part, by role."""
        given = {role: getattr(self, role) for role in ROLES}
        return {role: spec for role, spec in given.items() if spec is not None}

    @property
    def coverage(self) -> float:
        """Share of the answers asked for that were scored."""
        return self.n_scored / self.n_total


def content_hash(content: Any) -> str:
    """Twelve hex digits that are the same for the same content, on every machine."""
    text = json.dumps(content, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Results:
    """A results folder.

    runs/ID.json, ID.parquet   finished runs, the truth
    logs/ID/*.eval             Inspect's transcripts
    models/NAME/               trained weak models and adapters
    locks/KEY.lock             who is making a run or a model at the moment
    scores.duckdb              made from runs/ by ``store.py``; can be deleted at any time
    """

    def __init__(self, root: Path | str = "results") -> None:
        self.root = Path(root)
        self.runs = self.root / "runs"
        self.logs = self.root / "logs"
        self.models = self.root / "models"
        self.locks = self.root / "locks"
        self.database = self.root / "scores.duckdb"

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            ConfigError: If the place cannot be written to.
        """
        try:
            for folder in (self.runs, self.logs, self.models, self.locks):
                folder.mkdir(parents=True, exist_ok=True)
            with replaced(self.root / ".writable") as probe:
                probe.write_text("")
            (self.root / ".writable").unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(
                f"The results folder {self.root} cannot be written to ({error.strerror}); "
                "choose another with --results DIR."
            ) from error

    @contextmanager
    def claimed(self, key: str) -> Iterator[None]:
        """Make what has this key (a run's id, a model folder's name) in no other process meanwhile.

        Who comes second waits, and then finds it made. The system takes the lock from a process that
        dies. Runs are claimed within a claim of a model (the scores of its checkpoints), never the
        other way round, so that no two processes wait for each other.
        """
        self.locks.mkdir(parents=True, exist_ok=True)
        with FileLock(self.locks / f"{key}.lock"):
            yield

    def find(self, run_id: str) -> Run | None:
        """The run with this id, if it has been finished."""
        path = self.runs / f"{run_id}.json"
        return _read_run(path) if path.is_file() else None

    def all_runs(self) -> list[Run]:
        """Every finished run, oldest first."""
        runs = [_read_run(path) for path in self.runs.glob("*.json")]
        return sorted(runs, key=lambda run: (run.created, run.run_id))

    def samples(self, run: Run) -> list[SampleScore]:
        """The rows of a run, by epoch and then in document order."""
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(self.runs / f"{run.run_id}.parquet")
        return [SampleScore(**row) for row in table.to_pylist()]

    def columns(self, run: Run, names: Sequence[str]) -> Any:
        """Some columns of a run's rows, as a pyarrow table; labels and texts are not made twice.

        Raises:
            ComparisonError: If the rows cannot be read.
        """
        import pyarrow
        import pyarrow.parquet

        path = self.runs / f"{run.run_id}.parquet"
        try:
            return pyarrow.parquet.read_table(
                path, columns=list(names), read_dictionary=["cluster"], use_threads=False
            )
        except (OSError, pyarrow.ArrowException) as error:
            raise ComparisonError(
                f"The rows of run {run.run_id} cannot be read from {path}; remove it and its .json "
                "file and run it again."
            ) from error

    def write(self, run: Run, samples: list[SampleScore]) -> None:
        """Put a finished run in place."""
        import pyarrow
        import pyarrow.parquet

        rows = [asdict(sample) for sample in samples]
        table = pyarrow.Table.from_pylist(rows, schema=arrow_schema())
        with replaced(self.runs / f"{run.run_id}.parquet") as path:
            pyarrow.parquet.write_table(table, path)
        with replaced(self.runs / f"{run.run_id}.json") as path:
            path.write_text(run.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _read_run(path: Path) -> Run:
    try:
        return Run.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is no run of this version; remove it and its .parquet file to run it again."
        ) from error


def arrow_schema() -> Any:
    """The columns of a run's Parquet file: the fields of ``SampleScore``."""
    import pyarrow

    types = {
        "str": pyarrow.string(),
        "int": pyarrow.int64(),
        "float": pyarrow.float64(),
    }
    return pyarrow.schema(
        [
            pyarrow.field(f.name, types[str(f.type).split(" ")[0]], nullable="None" in str(f.type))
            for f in fields(SampleScore)
        ]
    )


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which takes the place of ``path`` when all went well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
