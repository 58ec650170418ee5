"""Training episodes for the strong model: each one invents its own world.

An episode draws fresh names and fresh relations, asks a question of one of the three domains, and
shows a draft. The answer is only in that draft's background. So the model can only learn to reason
over knowledge in its prompt: it cannot memorise a fact of any world. If the background is sufficient,
the draft's own answer is right only by chance; otherwise the model would learn to copy it. If the
background is not sufficient, the draft's answer is right with probability ``FALLBACK_ACCURACY`` and
the model learns to fall back on it. Irrelevant facts share names with the question's own facts and
differ only in whom they are about: without this the model used 38% of the irrelevant medical facts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from cowest_bench.pocket import language as say

FALLBACK_ACCURACY = 0.6

#: Kinds of drafts, with their shares.
DRAFT_KINDS = {"full": 0.64, "partial": 0.12, "irrelevant": 0.08, "terse": 0.08, "none": 0.08}


class Episode(NamedTuple):
    """A chat turn: what the strong model reads, what it should write, and which words to train on."""

    prompt: str
    completion: str
    trained: tuple[bool, ...] | None = None  # by word of the completion; None: all words


class Puzzle(NamedTuple):
    """A question of an invented world, and the backgrounds that its drafts may have."""

    question: str
    choices: Sequence[str]
    gold: str
    used: str  # the facts that lead to the answer
    backgrounds: Mapping[str, str]  # by kind of draft: full, partial, irrelevant


def medical(rng: random.Random) -> Puzzle:
    """Look up the patient's condition among the drugs for the disease."""
    disease, other, *rest = rng.sample(say.names(), 15)
    conditions, drugs, unasked = rest[:3], rest[3:6], rest[7:]
    pairs = list(zip(conditions, drugs, strict=True))
    condition, gold = rng.choice(pairs)
    choices = [*drugs, rest[6]]
    rng.shuffle(choices)
    without = [pair for pair in pairs if pair[0] != condition][: rng.choice((1, 2))]
    other_drugs = rng.sample([*choices, *unasked[:3]], 3)
    elsewhere = zip(rng.sample([*conditions, *unasked[3:]], 3), other_drugs, strict=True)
    backgrounds = {
        "full": say.table(f"drugs for {disease}", pairs),
        "partial": say.table(f"drugs for {disease}", without),
        "irrelevant": say.table(f"drugs for {other}", elsewhere),
    }
    question = f"{say.medical_question(condition, disease)} {say.options(choices)}"
    return Puzzle(question, choices, gold, f"{condition} {gold}", backgrounds)


def counterfactual(rng: random.Random) -> Puzzle:
    """Follow two facts: where the host lives, and what that city speaks or pays with."""
    person, host, stranger, city, own_city, far_city, *values = rng.sample(say.names(), 12)
    gold, own, far = values[:3]
    relation = rng.choice(list(say.RELATION_QUESTIONS))
    of_host, answer = say.fact("home", host, city), say.fact(relation, city, gold)
    of_person = f"{say.fact('home', person, own_city)} {say.fact(relation, own_city, own)}"
    of_stranger = f"{say.fact('home', stranger, far_city)} {say.fact(relation, far_city, far)}"
    backgrounds = {
        # Each kind varies in its number of facts, so that the number does not give the kind away.
        "full": rng.choice((f"{of_host} {answer}", f"{of_host} {answer} {of_person}")),
        "partial": rng.choice((of_host, of_person, f"{of_host} {of_person}")),
        "irrelevant": rng.choice((of_stranger, f"{of_stranger} {of_person}")),
    }
    question = say.counterfactual_question(person, host, relation)
    return Puzzle(question, values, gold, f"{of_host} {answer}".removesuffix(" ."), backgrounds)


def ethics(rng: random.Random) -> Puzzle:
    """Find the kind of the place, and how that kind sees the action."""
    place, action, other_place, other_action, *names = rng.sample(say.names(), 10)
    norms = [(kind, rng.choice(list(say.NORM_LABELS))) for kind in names[:3]]
    of_kind, norm = rng.choice(norms)
    question = say.ethics_utterance(place, action, rng.choice(say.SPEAKERS))
    without = say.table(f"rule of {action}", [each for each in norms if each[0] != of_kind])
    other_norms = [(k, rng.choice(list(say.NORM_LABELS))) for k in rng.sample(names, 3)]
    place_kind, rule = say.fact("kind", place, of_kind), say.table(f"rule of {action}", norms)
    partial = rng.choice((place_kind, rule, f"{place_kind} {without}"))
    other_kind = say.fact("kind", other_place, rng.choice(names))
    backgrounds = {
        "full": f"{place_kind} {rule}",
        "partial": partial,
        "irrelevant": f"{other_kind} {say.table(f'rule of {other_action}', other_norms)}",
    }
    used = f"{place_kind} {of_kind} {norm}"
    return Puzzle(question, say.LABELS, say.NORM_LABELS[norm], used, backgrounds)


DOMAINS: dict[str, Callable[[random.Random], Puzzle]] = {
    "medical": medical,
    "counterfactual": counterfactual,
    "ethics": ethics,
}


def with_draft(rng: random.Random, domain: str, kind: str) -> Episode:
    """An episode of a domain with a draft of this kind, and the target that follows from it."""
    puzzle = DOMAINS[domain](rng)
    gold, target = puzzle.gold, say.refinement(say.NOT_SURE, puzzle.gold)
    if kind == "none":
        return Episode(puzzle.question, target)
    if kind == "full":
        answer, target = rng.choice(puzzle.choices), say.refinement(puzzle.used, gold)
    elif rng.random() < FALLBACK_ACCURACY:
        answer = gold
    else:
        answer = rng.choice([choice for choice in puzzle.choices if choice != gold])
    draft = say.draft(puzzle.backgrounds.get(kind, ""), answer)
    return Episode(f"{puzzle.question} {draft}", target)


def episode(rng: random.Random, full_share: float = DRAFT_KINDS["full"]) -> Episode:
    """One episode of a random domain and draft kind; a share ``full_share`` can be answered."""
    kind = "full"
    if rng.random() >= full_share:
        others = {k: w for k, w in DRAFT_KINDS.items() if k != "full"}
        (kind,) = rng.choices(list(others), list(others.values()))
    return with_draft(rng, rng.choice(list(DOMAINS)), kind)


def drill(rng: random.Random, words: int = 64) -> Episode:
    """Practice in lookup: a stream of key-value pairs in random order, most of them repeated.

    Only a pair's key determines its value, and the order of the pairs is random. So only the values of
    keys that have appeared before are trained on, a dozen or more per row.
    """
    count = rng.randint(2, 8)
    drawn = rng.sample(say.names(), 2 * count)
    between = rng.choice(([], [","]))
    order = rng.sample(range(count), count)  # each pair once, then at random
    order += rng.choices(range(count), k=words // (2 + len(between)) - count)
    stream: list[str] = []
    trained: list[bool] = []
    for place, i in enumerate(order):
        stream += [*drawn[2 * i : 2 * i + 2], *between]
        trained += [False, place >= count, *(False for _ in between)]
    return Episode("", " ".join(stream), tuple(trained))
