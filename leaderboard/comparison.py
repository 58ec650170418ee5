"""Two entries on the same samples: what ``cowest compare`` computes, from a snapshot.

The only module here that needs scipy; pages import it when they compute.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cowest_bench.analysis import POOLED, contrasts
from cowest_bench.analysis.contrasts import Items
from cowest_bench.errors import ComparisonError
from leaderboard import data
from leaderboard.data import Snapshot


def compare(
    snapshot: Snapshot, ours: pd.DataFrame, theirs: pd.DataFrame, margin: float
) -> pd.DataFrame:
    """Runs against others, in every domain in which both were made on the same data.

    Args:
        snapshot: Where their scores are.
        ours: run_id, domain and data of the candidate's runs, one in each domain.
        theirs: Those of the baseline.
        margin: A loss of score that does not matter.

    Returns:
        A row for each domain, and for all together where there are several, with the names of
        ``contrasts.Contrast``.

    Raises:
        ComparisonError: If there is no such domain, or one without a sample that both have scores
            for.
    """
    both = ours.merge(theirs, on=["domain", "data"], suffixes=("_ours", "_theirs"))
    if both.empty:
        raise ComparisonError("The two were never run on the same samples.")
    found = contrasts.compare(
        {
            row.domain: contrasts.pair(
                _items(snapshot, row.run_id_ours), _items(snapshot, row.run_id_theirs)
            )
            for row in both.sort_values("domain").itertuples()
        },
        margin=margin,
    )
    pooled = {POOLED: found.pooled} if len(found.domains) > 1 else {}
    return pd.DataFrame(
        [
            {
                "domain": name,
                "difference": each.difference.value,
                "low": each.difference.low,
                "high": each.difference.high,
                "verdict": str(each.verdict),
                "p": each.p_holm,
                "ours": each.ours,
                "theirs": each.theirs,
                "n": each.n,
                "helped": each.helped,
                "hurt": each.hurt,
                "both_right": each.both_right,
                "both_wrong": each.both_wrong,
                "not_scored": each.not_scored,
                "detectable": contrasts.finite(each.detectable),
                "needed": each.needed,
            }
            for name, each in (found.domains | pooled).items()
        ]
    )


def _items(snapshot: Snapshot, run_id: str) -> Items:
    found = data.scores(snapshot, run_id)
    return Items.from_rows(
        found["sample_id"].to_numpy(),
        found["score"].to_numpy(dtype=float, na_value=np.nan),
        found["cluster"].to_numpy(),
    )
