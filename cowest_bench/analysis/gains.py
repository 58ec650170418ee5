"""What a collaboration gains over its models alone: the one definition that everything shows.

A gain is the difference to the *better* of the systems in which the collaboration's models answer
alone. The better one is chosen on the samples that all of them have scores for, so a single model
does not look good because it failed on the hard ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cowest_bench.analysis import ALPHA, contrasts
from cowest_bench.analysis.contrasts import Contrast, Items


@dataclass(frozen=True, slots=True)
class Gain:
    """A collaboration against each of its models alone.

    Attributes:
        best: Name of the better single system.
        over: The collaboration against every single system, by name.
    """

    best: str
    over: Mapping[str, Contrast]

    @property
    def contrast(self) -> Contrast:
        """Against the better one."""
        return self.over[self.best]


def gain(
    ours: Sequence[Items],
    singles: Mapping[str, Sequence[Items]],
    *,
    margin: float = 0.0,
    alpha: float = ALPHA,
) -> Gain | None:
    """The gain of a collaboration over one or several data sets, every sample counting the same.

    Args:
        ours: Its items, one for each data set.
        singles: Those of each single system, in the same order. Of two equally good ones, the first
            counts as the better.
        margin: A loss below it does not matter.
        alpha: The intervals hold with 1 - alpha.

    Returns:
        None if there is no single system, or no sample that all have scores for.
    """
    if not singles:
        return None
    names = [*singles]
    parts = zip(ours, *singles.values(), strict=True)
    common = np.concatenate([contrasts.common_scores(*each) for each in parts], axis=1)
    if not common.shape[1]:
        return None
    means = common[1:].mean(axis=1)
    over = {
        name: contrasts.contrast(
            contrasts.pool(
                [contrasts.pair(mine, other) for mine, other in zip(ours, theirs, strict=True)]
            ),
            margin=margin,
            alpha=alpha,
        )
        for name, theirs in singles.items()
    }
    return Gain(names[int(np.argmax(means))], over)
