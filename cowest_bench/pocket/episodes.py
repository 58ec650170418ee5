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
from collections.abc import Callable
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


def _finish(
    rng: random.Random,
    question: str,
    kind: str,
    backgrounds: dict[str, str],
    used: str,
    gold: str,
    choices: list[str],
) -> Episode:
    """The question with a draft of this kind, and the target that follows from it."""
    if kind == "full":
        draft = say.draft(backgrounds["full"], rng.choice(choices))
        return Episode(f"{question} {draft}", say.refinement(used, gold))
    target = say.refinement(say.NOT_SURE, gold)
    if kind == "none":
        return Episode(question, target)
    wrong = [choice for choice in choices if choice != gold]
    answer = gold if rng.random() < FALLBACK_ACCURACY else rng.choice(wrong)
    return Episode(f"{question} {say.draft(backgrounds.get(kind, ''), answer)}", target)


def medical(rng: random.Random, kind: str) -> Episode:
    """Look up the patient's condition among the drugs for the disease."""
    disease, other, *rest = rng.sample(say.names(), 15)
    conditions, drugs, unasked = rest[:3], rest[3:6], rest[7:]
    pairs = list(zip(conditions, drugs, strict=True))
    condition, gold = rng.choice(pairs)
    choices = [*drugs, rest[6]]
    rng.shuffle(choices)
    question = say.medical_question(condition, disease) + " " + say.options(choices)
    without = [pair for pair in pairs if pair[0] != condition][: rng.choice((1, 2))]
    other_drugs = rng.sample([*choices, *unasked[:3]], 3)
    elsewhere = list(zip(rng.sample([*conditions, *unasked[3:]], 3), other_drugs, strict=True))
    backgrounds = {
        "full": say.medical_background(disease, pairs),
        "partial": say.medical_background(disease, without),
        "irrelevant": say.medical_background(other, elsewhere),
    }
    return _finish(rng, question, kind, backgrounds, f"{condition} {gold}", gold, choices)


def counterfactual(rng: random.Random, kind: str) -> Episode:
    """Follow two facts: where the host lives, and what that city speaks or pays with."""
    person, host, stranger, *rest = rng.sample(say.names(), 12)
    city, own_city, far_city, *values = rest
    gold, own = values[:2]
    relation = rng.choice(list(say.RELATION_QUESTIONS))
    question = say.counterfactual_question(person, host, relation)
    of_host = say.home(host, city)
    answer_fact = say.city_fact(relation, city, gold)
    of_person = f"{say.home(person, own_city)} {say.city_fact(relation, own_city, own)}"
    of_stranger = f"{say.home(stranger, far_city)} {say.city_fact(relation, far_city, values[2])}"
    backgrounds = {
        # Each kind varies in its number of facts, so that the number does not give the kind away.
        "full": rng.choice((f"{of_host} {answer_fact}", f"{of_host} {answer_fact} {of_person}")),
        "partial": rng.choice((of_host, of_person, f"{of_host} {of_person}")),
        "irrelevant": rng.choice((of_stranger, f"{of_stranger} {of_person}")),
    }
    used = f"{of_host} {answer_fact}".removesuffix(" .")
    return _finish(rng, question, kind, backgrounds, used, gold, values)


def ethics(rng: random.Random, kind: str) -> Episode:
    """Find the kind of the place, and how that kind sees the action."""
    place, action, other_place, other_action, *names = rng.sample(say.names(), 10)
    kinds = names[:3]
    norms = [(k, rng.choice(list(say.NORM_LABELS))) for k in kinds]
    of_kind, norm = rng.choice(norms)
    gold = say.NORM_LABELS[norm]
    question = say.ethics_utterance(place, action, rng.choice(say.SPEAKERS))
    without = [(k, n) for k, n in norms if k != of_kind]
    other_norms = [(k, rng.choice(list(say.NORM_LABELS))) for k in rng.sample(names, 3)]
    place_kind = say.kind_of(place, of_kind)
    backgrounds = {
        "full": f"{place_kind} {say.rule_of(action, norms)}",
        "partial": rng.choice(
            (place_kind, say.rule_of(action, norms), f"{place_kind} {say.rule_of(action, without)}")
        ),
        "irrelevant": (
            f"{say.kind_of(other_place, rng.choice(names))} "
            f"{say.rule_of(other_action, other_norms)}"
        ),
    }
    used = f"{place_kind} {of_kind} {norm}"
    return _finish(rng, question, kind, backgrounds, used, gold, list(say.LABELS))


DOMAINS: dict[str, Callable[[random.Random, str], Episode]] = {
    "medical": medical,
    "counterfactual": counterfactual,
    "ethics": ethics,
}


def episode(rng: random.Random, full_share: float = DRAFT_KINDS["full"]) -> Episode:
    """One episode of a random domain and draft kind; a share ``full_share`` can be answered."""
    if rng.random() < full_share:
        kind = "full"
    else:
        others = {k: w for k, w in DRAFT_KINDS.items() if k != "full"}
        (kind,) = rng.choices(list(others), list(others.values()))
    return rng.choice(list(DOMAINS.values()))(rng, kind)


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
