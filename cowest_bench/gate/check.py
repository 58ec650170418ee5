"""The gate: is a new run, sample by sample, no worse than a baseline?

Runs are compared with those of the baseline on the same data (``contrasts.compare``). The check fails
if a domain or all of them together regressed, or a critical sample that was right is wrong now; it is
inconclusive if the pooled verdict is; otherwise it passes. A domain that is inconclusive on its own
does not decide: it has fewer samples than all together, and its interval is wider by design.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cowest_bench.analysis import ALPHA, MARGIN, contrasts, planning, stats
from cowest_bench.analysis.contrasts import Comparison, Pairs
from cowest_bench.analysis.stats import Verdict
from cowest_bench.errors import ComparisonError, ConfigError
from cowest_bench.gate import baseline as baselines
from cowest_bench.gate.baseline import Baseline, ScoredRun, item_key, scored
from cowest_bench.store import NOT_ASKED, Results, Run
from cowest_bench.store.comparison import by_domain, made_differently
from cowest_bench.store.selection import select

LOOKS = 5
RIGHT = 0.5  # a critical sample with at least this score (a mean over repeats) is right

Outcome = Literal["passed", "regressed", "inconclusive"]
Parts = Sequence[tuple[str, Pairs]]  # the data sets, each with its domain


@dataclass(frozen=True, slots=True)
class Settings:
    """What to decide, and with which confidence."""

    margin: float = MARGIN  # a loss below it, in units of the score, does not matter
    alpha: float = ALPHA  # chance of a false verdict, of the domains together and of the pooled one
    min_coverage: float = 0.98  # share of the baseline's scored samples that need a score now
    inconclusive: Literal["report", "pass", "fail"] = "report"  # how it counts
    sequential: bool = False  # stop at the first of ``LOOKS`` looks that decides


@dataclass(frozen=True, slots=True)
class Looked:
    """How far a sequential check had to look."""

    look: int  # the first one that decided, or the last
    looks: int
    seen: int  # samples seen by then
    samples: int  # in all
    calls_saved: int  # that the candidate made for the samples not seen


@dataclass(frozen=True, slots=True)
class Check:
    """What the gate found."""

    candidate: Sequence[ScoredRun]
    baseline: Baseline
    comparison: Comparison  # of the samples that were looked at
    critical: int  # how many samples are
    flipped: tuple[str, ...]  # keys of those that were right and are wrong now
    looked: Looked | None  # None if not sequential
    settings: Settings
    warnings: Sequence[str] = ()  # what a reader should know

    @property
    def outcome(self) -> Outcome:
        """See the module."""
        pooled = self.comparison.pooled.verdict
        verdicts = [each.verdict for each in self.comparison.domains.values()]
        if self.flipped or Verdict.REGRESSED in (*verdicts, pooled):
            return "regressed"
        return "inconclusive" if pooled == Verdict.INCONCLUSIVE else "passed"

    @property
    def exit_code(self) -> int:
        """0 passed, 1 regressed, 3 inconclusive unless the settings let it pass (0) or fail (1)."""
        inconclusive = {"report": 3, "pass": 0, "fail": 1}[self.settings.inconclusive]
        return {"passed": 0, "regressed": 1, "inconclusive": inconclusive}[self.outcome]


def check_runs(
    results: Results,
    candidate: str,
    baseline: str,
    settings: Settings,
    *,
    folder: Path,
    critical: str = "",
    max_age: int = 90,
) -> Check:
    """Check the stored runs that ``candidate`` selects (``selection.select``).

    The baseline is the name of a blessed one in the folder, a file, or else runs that it selects;
    ``critical`` is what ``read_critical`` reads; after ``max_age`` days a baseline is old.

    Raises:
        ConfigError: If there is no such run or baseline.
        ComparisonError: See ``check_scores``; or if a run that is needed cannot be read.
    """
    runs = select(results.all_runs(), candidate, results.damaged)
    ours = [scored(results, run) for run in runs]
    judge = baselines.baseline_of(results, baseline, folder)
    calls = _calls(results, runs) if settings.sequential else {}
    keys = read_critical(critical, judge.runs)
    found = check_scores(ours, judge, settings, critical=keys, calls=calls)
    return replace(found, warnings=(*_warnings(ours, judge, max_age), *results.damaged))


def check_scores(
    candidate: Sequence[ScoredRun],
    baseline: Baseline,
    settings: Settings,
    *,
    critical: Sequence[str] = (),
    calls: Mapping[str, int] | None = None,
) -> Check:
    """Check runs against those of a baseline.

    ``critical`` are the keys of samples that may not flip, ``calls`` how many the candidate made for
    each sample, to count those saved.

    Raises:
        ComparisonError: If a run of the baseline has no counterpart on the same data, too few
            samples have a score on both sides, or a critical one has none.
    """
    parts: Parts = paired(candidate, baseline.runs)
    flipped = _flipped(parts, critical)
    looked, alpha = None, settings.alpha
    if settings.sequential:
        parts, looked = _looked_at(parts, settings, calls or {})
        alpha = _level(looked.look, alpha)
    for domain, pairs in parts:
        before = int((~np.isnan(pairs.theirs)).sum()) + pairs.only_theirs
        share = int(pairs.scored.sum()) / before if before else 0.0
        if share < settings.min_coverage:
            raise ComparisonError(
                f"{domain}: only {share:.1%} of the baseline's {before:,} scored samples have a score "
                f"now, less than --min-coverage {settings.min_coverage:g}; the same cowest run again "
                "asks only the samples that have no score."
            )
    found = contrasts.compare(by_domain(parts), margin=settings.margin, alpha=alpha)
    return Check(candidate, baseline, found, len(critical), flipped, looked, settings)


def paired(
    candidate: Sequence[ScoredRun], baseline: Sequence[ScoredRun]
) -> list[tuple[str, Pairs]]:
    """Every run of the baseline beside the candidate's on the same data, with its domain.

    Raises:
        ComparisonError: If there is none.
    """
    known = {run.data: run for run in candidate}
    parts = []
    for blessed in baseline:
        if blessed.data not in known:
            has = ", ".join(f"{run.domain} {run.data}" for run in candidate)
            raise ComparisonError(
                f"The baseline's {blessed.domain} is of data {blessed.data}, the candidate has {has}: "
                "these are not the same samples. Run the same task, split, seed, limit and "
                "examples, or bless a new baseline."
            )
        parts.append((blessed.domain, contrasts.pair(known[blessed.data].items, blessed.items)))
    return parts


def pooled(parts: Parts) -> tuple[Pairs, NDArray[np.intp]]:
    """The samples of several data sets as one, and the data set of each, 0..K-1."""
    part = np.repeat(np.arange(len(parts)), [len(each.keys) for _, each in parts])
    return contrasts.pool([each for _, each in parts]), part


# --- critical samples -----------------------------------------------------------------------------


def read_critical(text: str, baseline: Sequence[ScoredRun]) -> list[str]:
    """Keys of critical samples, from lines with a key or a sample id each; # starts a comment.

    Raises:
        ConfigError: If a line is not a sample of the baseline, or a sample id could mean several.
    """
    known = {key for run in baseline for key in run.scores}
    found: dict[str, None] = {}
    for line in filter(None, (line.partition("#")[0].strip() for line in text.splitlines())):
        by_id = [item_key(run.data, int(line)) for run in baseline if line.isdecimal()]
        keys = [line] if line in known else [key for key in by_id if key in known]
        if len(keys) > 1:
            raise ConfigError(
                f"Critical sample {line}: several data sets have it; use its key: "
                f"{' or '.join(keys)}."
            )
        if not keys:
            raise ConfigError(
                f"Critical sample {line[:40]!r} is not in the baseline; give its id or its key."
            )
        found[keys[0]] = None
    return [*found]


def _flipped(parts: Parts, critical: Sequence[str]) -> tuple[str, ...]:
    """Which critical samples were right and are wrong now."""
    scores = {
        str(key): (before, now)
        for _, pairs in parts
        for key, before, now in zip(pairs.keys, pairs.theirs, pairs.ours, strict=True)
        if critical
    }
    found = {key: scores.get(key, (np.nan, np.nan)) for key in critical}
    if unknown := [key for key, both in found.items() if np.isnan(both).any()]:
        raise ComparisonError(
            f"Critical samples without a score on both sides: {', '.join(unknown)}; the same cowest "
            "run again asks only the samples that have no score."
        )
    return tuple(key for key, (before, now) in found.items() if now < RIGHT <= before)


# --- look by look ---------------------------------------------------------------------------------


def decided(seen: Pairs, look: int, settings: Settings) -> Verdict | None:
    """The verdict on the samples of a look, 1 for the first; None if the evaluation has to continue.

    All of them have scores, and the looks hold together (``planning.obrien_fleming``).
    """
    level = _level(look, settings.alpha)
    difference = stats.paired_difference(seen.ours, seen.theirs, seen.clusters, level)
    verdict = stats.verdict(difference, settings.margin)
    return None if verdict == Verdict.INCONCLUSIVE and look < LOOKS else verdict


@cache
def _level(look: int, alpha: float) -> float:
    return float(planning.obrien_fleming(LOOKS, alpha)[look - 1])


def in_order(pairs: Pairs) -> NDArray[np.intp]:
    """The order in which a sequential check looks at samples: at random, in whole clusters.

    Clusters are sorted by the hash of their first key, so the order is the same every time and
    independent of the scores, and a large cluster is as likely to come late as a small one.
    """
    by_key = np.argsort(pairs.keys)
    _, first = np.unique(pairs.clusters[by_key], return_index=True)
    hashes = np.array([baselines.short_hash(key) for key in pairs.keys[by_key][first]])
    return np.lexsort((pairs.keys, hashes[pairs.clusters]))


def looks_of(pairs: Pairs) -> list[NDArray[np.intp]]:
    """The rows seen by each look: another fifth of them, and what completes a cluster."""
    order = in_order(pairs)
    clusters = pairs.clusters[order]
    ends = np.flatnonzero(np.append(clusters[1:] != clusters[:-1], True)) + 1
    wanted = np.arange(1, LOOKS + 1) * len(order) / LOOKS
    return [order[:end] for end in ends[np.searchsorted(ends, wanted)]]


def first_decided(parts: Parts, settings: Settings, looks: int = LOOKS) -> int | None:
    """Which of the first ``looks`` decides, 1 for the first, None if none does; the last always does."""
    pairs, part = pooled(parts)
    for look, seen in enumerate(looks_of(pairs)[:looks], 1):
        known = seen[pairs.scored[seen]]
        # A data set without any sample so far could not be reported.
        if look < LOOKS and len(np.unique(part[known])) <= part.max():
            continue
        if decided(_only(pairs, known), look, settings):
            return look
    return None


def _looked_at(
    parts: Parts, settings: Settings, calls: Mapping[str, int]
) -> tuple[list[tuple[str, Pairs]], Looked]:
    """The samples that were seen by the look that decided."""
    pairs, part = pooled(parts)
    look = first_decided(parts, settings) or LOOKS
    seen = looks_of(pairs)[look - 1]
    within = np.zeros(len(pairs.keys), dtype=bool)
    within[seen] = True
    kept = [(name, _only(pairs, within & (part == k))) for k, (name, _) in enumerate(parts)]
    saved = sum(calls.get(str(key), 0) for key in pairs.keys[~within])
    return kept, Looked(look, LOOKS, len(seen), len(within), saved)


def _only(pairs: Pairs, rows: NDArray[Any]) -> Pairs:
    clusters = np.unique(pairs.clusters[rows], return_inverse=True)[1]
    return Pairs(pairs.keys[rows], pairs.ours[rows], pairs.theirs[rows], clusters)


def _calls(results: Results, runs: Sequence[Run]) -> Counter[str]:
    """How many calls to models each sample takes; one that was not asked yet, as many as most others."""
    calls: Counter[str] = Counter()
    for run in runs:
        table = results.columns(run, ("sample_id", "weak_calls", "strong_calls", "error"))
        rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
        made = Counter(weak + strong for _, weak, strong, error in rows if error != NOT_ASKED)
        usual = max(made, key=lambda count: made[count], default=0)
        for sample_id, weak, strong, error in rows:
            asked = weak + strong if error != NOT_ASKED else usual
            calls[item_key(run.data, sample_id)] += asked
    return calls


def _warnings(candidate: Sequence[ScoredRun], baseline: Baseline, max_age: int) -> Iterator[str]:
    if baseline.age > max_age:
        yield (
            f"the baseline {baseline.name} is {baseline.age} days old, more than "
            f"--max-age {max_age}; bless a newer run"
        )
    known = {run.data: run for run in baseline.runs}
    for run in candidate:
        if run.data not in known:
            yield f"{run.domain} (run {run.run_id}) is not in the baseline and was not checked"
    yield from made_differently([(run, known[run.data]) for run in candidate if run.data in known])
