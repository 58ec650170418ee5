"""Influence and preference pairs, on cases small enough to do by hand."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowest_bench.analysis.feedback import (
    Candidate,
    best_drafts,
    influence,
    preference_pairs,
)
from cowest_bench.errors import ConfigError
from cowest_bench.store import SampleScore


def row(sample_id: int, **given: Any) -> SampleScore:
    blank: dict[str, Any] = {
        f.name: 0 if str(f.type) in ("int", "float") else "" if str(f.type) == "str" else None
        for f in fields(SampleScore)
    }
    return SampleScore(**(blank | {"sample_id": sample_id, "epoch": 1} | given))


def test_influence_is_the_score_with_minus_without() -> None:
    drafts = [
        row(0, draft="a", score=1.0),
        row(0, draft="b", score=0.0),
        row(1, draft="c", score=1.0),
    ]
    alone = [row(0, score=0.0), row(1, score=1.0)]
    assert influence(drafts, alone, "metric") == [
        Candidate(0, 1, "a", 1.0),
        Candidate(0, 1, "b", 0.0),
        Candidate(1, 1, "c", 0.0),
    ]


def test_what_was_not_scored_says_nothing() -> None:
    drafts = [row(0, draft="a", score=None, error="x"), row(1, draft="b", score=1.0)]
    alone = [row(0, score=0.0), row(1, score=None, error="x")]
    assert influence(drafts, alone, "metric") == []


def test_graded_influence_needs_log_probabilities() -> None:
    with pytest.raises(ConfigError, match="graded"):
        influence([row(0, draft="a", score=1.0)], [row(0, score=0.0)], "logprob")


def test_sign_rule_is_the_papers() -> None:
    drafts = [
        Candidate(0, 1, "helps", 1.0),
        Candidate(0, 1, "hurts", -1.0),
        Candidate(0, 1, "idle", 0.0),
    ]
    pairs = preference_pairs(drafts, "sign")
    assert {(p.chosen.draft, p.rejected.draft) for p in pairs} == {
        ("helps", "hurts"),
        ("helps", "idle"),
    }


def test_rank_rule_needs_a_clear_difference_and_help() -> None:
    close = [Candidate(0, 1, "a", 0.9), Candidate(0, 1, "b", 0.9 - 0.15)]
    harmful = [Candidate(1, 1, "a", -0.1), Candidate(1, 1, "b", -2.0)]
    clear = [Candidate(2, 1, "a", 2.0), Candidate(2, 1, "b", 1.0)]
    (pair,) = preference_pairs([*close, *harmful, *clear], "rank")
    assert (pair.sample_id, pair.chosen.draft, pair.rejected.draft) == (2, "a", "b")


candidates = st.lists(
    st.builds(
        Candidate,
        st.integers(0, 5),
        st.just(1),
        st.sampled_from("abcdef"),
        st.floats(-5, 5, allow_nan=False),
    ),
    max_size=40,
)


@given(candidates, st.sampled_from(["sign", "rank"]))
def test_pairs_prefer_what_helped_more(drafts: list[Candidate], rule: Any) -> None:
    pairs = preference_pairs(drafts, rule)
    assert all(pair.chosen.influence > pair.rejected.influence for pair in pairs)
    assert all(pair.chosen.sample_id == pair.rejected.sample_id == pair.sample_id for pair in pairs)
    samples = [pair.sample_id for pair in pairs]
    assert all(samples.count(each) <= 2 for each in samples)


@given(candidates)
def test_random_control_has_as_many_pairs_of_the_same_samples(drafts: list[Candidate]) -> None:
    ranked, drawn = preference_pairs(drafts, "rank"), preference_pairs(drafts, "random")
    assert [pair.sample_id for pair in ranked] == [pair.sample_id for pair in drawn]
    assert all(pair.chosen.draft != pair.rejected.draft for pair in drawn)


def test_random_control_does_not_follow_influence() -> None:
    drafts = [Candidate(q, 1, d, float(d == "good")) for q in range(200) for d in ("good", "bad")]
    drawn = preference_pairs(drafts, "random")
    right = sum(pair.chosen.draft == "good" for pair in drawn)
    assert 70 <= right <= 130


def test_best_drafts_come_once() -> None:
    drafts = [Candidate(0, 1, "a", 2.0), Candidate(0, 1, "b", 0.0), Candidate(0, 1, "c", 1.0)]
    assert [best.draft for best in best_drafts(preference_pairs(drafts, "rank"))] == ["a"]
