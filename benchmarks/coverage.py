"""How well the intervals, tests, verdicts and plans of cowest_bench.stats hold, by simulation.

    python benchmarks/coverage.py --seed 0 --out FILE.md     # the tables of docs/statistics.md
    python benchmarks/coverage.py --quick                    # a fiftieth of the draws, for CI

Exits with 1 if a claim fails. A claim is a bound on a measured rate; it fails when the rate is
further outside than two Monte Carlo standard errors (four with --quick, which tells less).
Percentages outside of a claim's bounds, by however little, are printed in bold.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
from scipy.stats import binom

from cowest_bench import planning, stats
from cowest_bench.stats import Estimate, Floats, Verdict

Codes = np.ndarray[tuple[int], np.dtype[np.intp]]
SIZES = (100, 200, 500, 1000, 2000)
RATES = (0.1, 0.3, 0.5, 0.7, 0.9)
CORRELATION = 0.2  # of two questions of one cluster
COVERAGE = (0.94, 0.96)


@dataclass
class Findings:
    """Tables as they are made, and the claims that did not hold."""

    seed: int
    quick: bool
    lines: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def draws(self, full: int) -> int:
        return max(40, full // 50) if self.quick else full

    def rng(self, *names: object) -> np.random.Generator:
        """A generator of its own for every cell, so that cells can be left out or added."""
        return np.random.default_rng([self.seed, *" ".join(map(str, names)).encode()])

    def rate(self, name: str, hits: float, draws: int, low: float = 0.0, high: float = 1.0) -> str:
        """A percentage for a table, its claim being checked; no draws: it is exact."""
        share = hits / draws if draws else hits
        error = np.sqrt(max(share * (1 - share), 0.01) / draws) if draws else 1e-9
        slack = (4 if self.quick else 2) * error
        if not low - slack <= share <= high + slack:
            self.failed.append(f"{name}: {share:.2%}, claimed {low:.0%} to {high:.0%}")
        return f"{share:.1%}" if low <= share <= high else f"**{share:.1%}**"

    def table(self, title: str, header: list[str], rows: list[list[str]]) -> None:
        self.lines += [
            "",
            f"### {title}",
            "",
            f"| {' | '.join(header)} |",
            "|---" * len(header) + "|",
        ]
        self.lines += [f"| {' | '.join(row)} |" for row in rows]
        click.echo(f"{title}: done", err=True)


# --- the data -------------------------------------------------------------------------------------


def designs(n: int) -> dict[str, Codes]:
    """Questions alone, in clusters of five, and in clusters of 1, 3, 5, 7 and 9."""
    uneven = np.resize([1, 3, 5, 7, 9], n // 5)
    return {
        "single": np.arange(n),
        "fives": np.arange(n) // 5,
        "1 to 9": np.repeat(np.arange(n // 5), uneven),
    }


def by_cluster(rng: np.random.Generator, shares: Floats, codes: Codes) -> Floats:
    """Each question's chances of the outcomes, alike within a cluster (Dirichlet)."""
    if len(codes) == codes[-1] + 1:
        return np.broadcast_to(shares, (len(codes), len(shares)))
    own = rng.standard_gamma(
        np.maximum(shares, 1e-12) * (1 / CORRELATION - 1), (codes[-1] + 1, len(shares))
    )
    return (own / own.sum(axis=1, keepdims=True))[codes]


def right_wrong(rng: np.random.Generator, rate: float, codes: Codes) -> Floats:
    chance = by_cluster(rng, np.array([rate, 1 - rate]), codes)[:, 0]
    return (rng.random(len(codes)) < chance).astype(float)


def graded(rng: np.random.Generator, rate: float, codes: Codes) -> Floats:
    """Half of the scores are 0 or 1 and the others between, as F1 has them; the mean is rate."""
    chance = np.clip(by_cluster(rng, np.array([rate, 1 - rate]), codes)[:, 0], 1e-9, 1 - 1e-9)
    between = rng.beta(2 * chance, 2 * (1 - chance))
    return np.where(rng.random(len(codes)) < 0.5, rng.random(len(codes)) < chance, between)


def pairs(
    rng: np.random.Generator, discordance: float, difference: float, codes: Codes
) -> tuple[Floats, Floats]:
    """Right/wrong scores of two systems, as far as they differ."""
    b, c = (discordance + difference) / 2, (discordance - difference) / 2
    chance = by_cluster(rng, np.array([b, c, 1 - b - c]), codes)
    u = rng.random(len(codes))
    helped = u < chance[:, 0]
    hurt = ~helped & (u < chance[:, 0] + chance[:, 1])
    return helped.astype(float), hurt.astype(float)


def graded_pairs(
    rng: np.random.Generator, rate: float, difference: float, codes: Codes
) -> tuple[Floats, Floats]:
    """Graded scores of two systems that answer half of the questions alike."""
    theirs = graded(rng, rate, codes)
    other = graded(rng, rate + 2 * difference, codes)
    return np.where(rng.random(len(codes)) < 0.5, theirs, other), theirs


# --- intervals ------------------------------------------------------------------------------------


def means(found: Findings) -> None:
    """Coverage of mean_interval; the rate of each draw lies within .02 of the column's."""
    kinds: dict[str, tuple[Callable[..., Floats], tuple[int, ...]]] = {
        "right/wrong": (right_wrong, SIZES),
        "graded": (graded, (100, 500, 2000)),
    }
    draws = found.draws(10_000)
    for kind, (make, sizes) in kinds.items():
        rows = []
        for n in sizes:
            for design, codes in designs(n).items():
                cells = []
                for rate in RATES:
                    rng, held = found.rng("mean", kind, n, design, rate), 0
                    for _ in range(draws):
                        truth = rng.uniform(rate - 0.02, rate + 0.02)
                        _, low, high = stats.mean_interval(make(rng, truth, codes), codes)
                        held += low <= truth <= high
                    cells.append(
                        found.rate(f"mean {kind} {n} {design} {rate}", held, draws, *COVERAGE)
                    )
                rows.append([str(n), design, *cells])
        found.table(
            f"Coverage of the mean, {kind} scores", ["n", "clusters", *map(str, RATES)], rows
        )


def exact_means(found: Findings) -> None:
    """Coverage of mean_interval at one rate, single right/wrong questions: the sum over all counts."""
    rows = []
    for n in SIZES:
        counts = np.arange(n + 1)
        intervals = np.array([stats.mean_interval(np.arange(n) < k, np.arange(n)) for k in counts])
        cells = []
        for rate in RATES:
            held = (intervals[:, 1] <= rate) & (rate <= intervals[:, 2])
            share = float(binom.pmf(counts, n, rate)[held].sum())
            cells.append(found.rate(f"exact mean {n} {rate}", share, 0, 0.93, 0.97))
        rows.append([str(n), *cells])
    found.table("Coverage of the mean at exactly that rate", ["n", *map(str, RATES)], rows)


def differences(found: Findings) -> None:
    """Coverage of paired_difference; the discordance of each draw within a fifth of the column's."""
    columns = [(d, f) for d in (0.1, 0.3) for f in (0.0, 0.5, 1.0)][:5]
    draws, rows = found.draws(10_000), []
    for n in SIZES:
        for design, codes in designs(n).items():
            cells = []
            for d, share in columns:
                rng, held = found.rng("difference", n, design, d, share), 0
                for _ in range(draws):
                    discordance = rng.uniform(0.8 * d, 1.2 * d)
                    truth = share * discordance
                    ours, theirs = pairs(rng, discordance, truth, codes)
                    _, low, high = stats.paired_difference(ours, theirs, codes)
                    held += low <= truth <= high
                name = f"difference {n} {design} {d} {share}"
                cells.append(found.rate(name, held, draws, *COVERAGE))
            rows.append([str(n), design, *cells])
    header = [f"{d:.0%} differ, {(1 + f) / 2:.0%} helped" for d, f in columns]
    found.table("Coverage of the difference, right/wrong", ["n", "clusters", *header], rows)

    rows = []
    cases = ((0.1, 0.0), (0.5, 0.0), (0.1, 0.1), (0.5, 0.1))
    for n in (100, 500, 2000):
        for design, codes in designs(n).items():
            cells = []
            for rate, truth in cases:
                rng, held = found.rng("graded difference", n, design, rate, truth), 0
                for _ in range(draws):
                    ours, theirs = graded_pairs(rng, rate, truth, codes)
                    _, low, high = stats.paired_difference(ours, theirs, codes)
                    held += low <= truth <= high
                name = f"graded difference {n} {design} {rate} {truth}"
                cells.append(found.rate(name, held, draws, *COVERAGE))
            rows.append([str(n), design, *cells])
    header = [f"mean {rate}, difference {truth}" for rate, truth in cases]
    found.table("Coverage of the difference, graded", ["n", "clusters", *header], rows)


def bootstraps(found: Findings) -> None:
    """Coverage of cluster_bootstrap for a mean and for the share of a gap that is closed."""
    draws, rows = found.draws(2_000), []
    for n, design in ((100, "single"), (300, "single"), (250, "fives"), (500, "fives")):
        codes = designs(n)[design]
        rng, mean, gap = found.rng("bootstrap", n, design), 0, 0
        for _ in range(draws):
            weak, strong = graded(rng, 0.3, codes), graded(rng, 0.7, codes)
            collab = np.where(rng.random(n) < 0.5, weak, strong)
            _, low, high = stats.cluster_bootstrap([weak], codes, draws=999)
            mean += low <= 0.3 <= high
            _, low, high = stats.cluster_bootstrap(
                [collab, weak, strong], codes, lambda c, w, s: (c - w) / (s - w), draws=999
            )
            gap += low <= 0.5 <= high
        cells = [
            found.rate(f"bootstrap {what} {n} {design}", held, draws, *COVERAGE)
            for what, held in (("mean", mean), ("gap", gap))
        ]
        rows.append([str(n), design, *cells])
    found.table("Coverage of the bootstrap", ["n", "clusters", "mean", "gap closed"], rows)


def ranks(found: Findings) -> None:
    """How often all true ranks of eight systems, three of them equal, are inside their intervals."""
    rates = np.array([0.3, 0.4, 0.5, 0.5, 0.5, 0.55, 0.6, 0.8])
    draws, rows = found.draws(1_000), []
    best = 1 + (rates[:, None] < rates).sum(axis=1)
    worst = len(rates) - (rates[:, None] > rates).sum(axis=1)
    for n in (100, 500):
        for design, codes in designs(n).items():
            rng, held, width = found.rng("ranks", n, design), 0, 0.0
            for _ in range(draws):
                table = np.stack([right_wrong(rng, rate, codes) for rate in rates])
                found_ranks = np.array(stats.rank_intervals(table, codes, draws=500))
                held += bool(
                    (found_ranks[:, 0] <= best).all() and (found_ranks[:, 1] >= worst).all()
                )
                width += float((found_ranks[:, 1] - found_ranks[:, 0]).mean()) / draws
            cell = found.rate(f"ranks {n} {design}", held, draws, 0.95, 1.0)
            rows.append([str(n), design, cell, f"{width + 1:.1f}"])
    found.table(
        "All ranks of eight systems inside", ["n", "clusters", "coverage", "mean ranks"], rows
    )


# --- tests ----------------------------------------------------------------------------------------


def sizes(found: Findings) -> None:
    """Size at 5%: McNemar's tests by enumeration, the others by simulation."""
    rows = []
    for d in (0.05, 0.1, 0.3):
        for n in (100, 500):
            m = np.arange(n + 1)
            rejected = {False: np.zeros(n + 1), True: np.zeros(n + 1)}
            for mid_p, of in rejected.items():
                for total in m:
                    p = np.array(
                        [
                            stats.mcnemar(
                                np.r_[np.ones(k), np.zeros(total - k)],
                                np.r_[np.zeros(k), np.ones(total - k)],
                                mid_p,
                            ).p
                            for k in range(total // 2 + 1)
                        ]
                    )
                    chances = binom.pmf(np.arange(total // 2 + 1), total, 0.5)
                    of[total] = 2 * chances[p <= 0.05].sum()
            weights = binom.pmf(m, n, d)
            rows.append(
                [
                    f"{n}, {d:.0%} differ",
                    *(
                        found.rate(f"size {n} {d} {mid}", float(weights @ of), 0, 0, high)
                        for (mid, of), high in zip(rejected.items(), (0.05, 0.055), strict=True)
                    ),
                ]
            )
    found.table("Size of McNemar's test at 5%, exactly", ["n", "exact", "mid-p"], rows)


PARTS = (means, exact_means, differences, bootstraps, ranks, sizes)


@click.command()
@click.option("--seed", default=0, show_default=True)
@click.option("--quick", is_flag=True, help="A fiftieth of the draws.")
@click.option("--only", type=click.Choice([part.__name__ for part in PARTS]), multiple=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the tables there.")
def main(seed: int, quick: bool, only: tuple[str, ...], out: Path | None) -> None:
    """Print the tables as Markdown; exit with 1 if a claim fails."""
    found = Findings(seed, quick)
    for part in PARTS:
        if not only or part.__name__ in only:
            part(found)
    text = "\n".join(found.lines).strip() + "\n"
    if out:
        out.write_text(text, encoding="utf-8")
    else:
        click.echo(text)
    for line in found.failed:
        click.echo(f"claim failed: {line}", err=True)
    sys.exit(bool(found.failed))


if __name__ == "__main__":
    main()
