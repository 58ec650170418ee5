"""What a finished evaluation leaves behind: one JSON (the run) and one Parquet file (its samples).

Ids are hashes of how things are made: the same on every machine, and known before they are made. A
sample that could not be scored has a row with its error and no score: an error is neither a zero nor a
gap.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from cowest_bench.config import ROLES, ModelSpec, Role

SCHEMA_VERSION: Literal[2] = 2
NOT_ASKED = "not asked yet"  # the error of an answer that was left for later on purpose


def content_hash(content: Any) -> str:
    """Twelve hex digits that are the same for the same content (anything JSON can hold).

    An iterator stands for the list of what it yields, which is then never in memory as a whole: the
    content itself, or an element of it.
    """
    digest = hashlib.sha256()
    for text in _json_texts(content):
        digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:12]


def _json_texts(content: Any) -> Iterator[str]:
    """The JSON of content, in parts."""
    is_list = isinstance(content, list)
    if not isinstance(content, Iterator) and not (
        is_list and any(isinstance(e, Iterator) for e in content)
    ):
        yield json.dumps(content, sort_keys=True, default=str, ensure_ascii=False)
        return
    before = "["
    for each in content:
        yield before
        yield from _json_texts(each)
        before = ", "
    yield "]" if before == ", " else "[]"


@dataclass(frozen=True, slots=True)
class SampleScore:
    """One answer to a sample: a row of a run's Parquet file.

    ``score`` is the task's primary metric (0 is wrong), None if there is none because of ``error``.
    ``metrics`` and ``completions`` (all of a task's ``repeats``, if several; ``draft`` is the first,
    ``output`` the last) are JSON. Log-probabilities are in nats, costs in US dollars; tokens are the
    server's count for the recorded attempt, None where it does not say.
    """

    run_id: str
    sample_id: int
    epoch: int
    cluster: str | None
    question: str
    gold: str
    draft: str | None = None
    output: str | None = None
    completions: str | None = None
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
    """An evaluation of one cell: a task's split under one system, with what it depends on."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[2] = SCHEMA_VERSION
    run_id: str
    """The ``answers_id``: a hash of ``identity``, so that a rerun finds the run."""
    score_id: str
    """Hash of ``scoring``; ``cowest rescore`` changes it, and asks nobody."""
    data: str
    """Hash of the samples, their gold answers and their task's version: runs with the same one can be
    compared, sample by sample."""
    task: str
    domain: str
    suite: str | None = None  # name that the task shares with others which are shown beside it
    split: str
    options: dict[str, Any] = Field(default_factory=dict)  # passed on to the task, such as seed
    system: str
    compared_with: tuple[str, ...] = ()  # the systems in which its models answer alone
    format: str | None = None  # a key of prompts.FORMATS, if the system has an interaction format
    weak: ModelSpec | None
    strong: ModelSpec | None
    evaluator: ModelSpec | None = None
    reported: dict[str, list[str]] = Field(default_factory=dict)
    """Which models endpoints said had answered, by role: a name may stand for another tomorrow."""
    seed: int
    epochs: int
    control: str | None = None  # what was done to the drafts on purpose, such as shuffled
    graded: bool = False  # whether the gold answers' log-probabilities were recorded
    n_total: int = Field(gt=0)  # answers asked for: samples times epochs
    n_scored: int = Field(ge=0)
    score: float | None  # mean of the primary metric over what was scored
    metrics: dict[str, float]  # all, as lm-eval aggregates them; with several epochs, of the first
    attempts: int = 1  # how often missing answers were asked for, the first time included
    seconds: float
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    identity: dict[str, Any]  # everything that can change an answer
    scoring: dict[str, Any] = Field(default_factory=dict)
    """Everything that can change a score of the same answer."""
    made_from: dict[str, str] = Field(default_factory=dict)
    """Content hashes of the results that it was made from: weights by role, or runs."""
    content: str = ""  # hash of the rows; what is derived from them is made again when it changes
    rows_hash: str = ""
    """Hash of the Parquet file, by which damage is found."""
    seal: str = ""
    """Hash of everything else here, likewise."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Libraries by version: recorded and reported in comparisons, not part of any id."""
    log: str  # Inspect's log of the run, relative to the results folder

    @property
    def models(self) -> dict[Role, ModelSpec]:
        """The models that took part, by role."""
        given = {role: getattr(self, role) for role in ROLES}
        return {role: spec for role, spec in given.items() if spec is not None}

    @property
    def labels(self) -> dict[str, str]:
        """Short names of the models, by role."""
        return {role: spec.label for role, spec in self.models.items()}

    @property
    def model_ids(self) -> dict[str, Any]:
        """What identifies the model in each role."""
        known = self.identity.get("models")
        return dict(known) if isinstance(known, dict) else {}

    @property
    def coverage(self) -> float:
        """Share of the answers asked for that were scored."""
        return self.n_scored / self.n_total


@dataclass(frozen=True, slots=True)
class Entry:
    """A system with its models, by the labels that all checkpoints of a model share."""

    system: str
    weak: str | None
    strong: str | None
    format: str | None
    control: str | None

    @classmethod
    def of(cls, run: Run) -> Self:
        """The entry that a run is a checkpoint of."""
        weak = run.weak.base_label if run.weak else None
        strong = run.strong.base_label if run.strong else None
        return cls(run.system, weak, strong, run.format, run.control)

    @property
    def id(self) -> str:
        """Twelve hex digits."""
        return content_hash(astuple(self))

    @property
    def models(self) -> str:
        """``weak-64 + strong``, or the only one."""
        return " + ".join(name for name in (self.weak, self.strong) if name)


@cache
def arrow_schema() -> Any:
    """The columns of a run's Parquet file: the fields of ``SampleScore``."""
    import pyarrow

    types = {"str": pyarrow.string(), "int": pyarrow.int64(), "float": pyarrow.float64()}
    return pyarrow.schema(
        [
            pyarrow.field(f.name, types[str(f.type).split(" ")[0]], nullable="None" in str(f.type))
            for f in fields(SampleScore)
        ]
    )
