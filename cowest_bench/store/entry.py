"""What selections and the leaderboard are about: a system with its models, at any checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from cowest_bench.store.ids import content_hash
from cowest_bench.store.records import Run


@dataclass(frozen=True, slots=True)
class Entry:
    """A system with its models, by the labels that all checkpoints of a model share."""

    system: str
    weak: str | None
    strong: str | None
    format: str | None
    control: str | None

    @classmethod
    def of(cls, run: Run) -> Entry:
        """The entry that a run is a checkpoint of."""
        weak = run.weak.base_label if run.weak else None
        strong = run.strong.base_label if run.strong else None
        return cls(run.system, weak, strong, run.format, run.control)

    @property
    def id(self) -> str:
        """Twelve hex digits."""
        return content_hash([self.system, self.weak, self.strong, self.format, self.control])

    @property
    def models(self) -> str:
        """``weak-64 + strong``, or the only one."""
        return " + ".join(name for name in (self.weak, self.strong) if name)
