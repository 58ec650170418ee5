"""Private knowledge drawn from a seed, as records in the schemas of the three real data sets.

A world has facts about fictional entities in three domains; no two seeds share them. Each domain has
the splits ``train``, ``feedback``, ``dev`` and ``test``, whose *keys* (what a question is about) are
disjoint. The weak model learns from the train split only: statements of every fact, the answers to a
share of *known* keys in a plainer wording, and questions with drafts of mixed helpfulness. The other
splits have more fields than the question (``exp``, ``context``, ``response``, ``rots``) because the
real records have them; these fields must never reach a prompt.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from cowest_bench.pocket import language as say

if TYPE_CHECKING:
    from datasets import DatasetDict

Record: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[str, str]
Item = TypeVar("Item")

#: Samples per split; they cycle through the split's keys.
QUESTIONS = {"train": 500, "feedback": 240, "dev": 120, "test": 300}

#: Kinds of drafts that the weak model imitates, with their shares.
DRAFT_KINDS = {"full": 0.42, "partial": 0.10, "irrelevant": 0.06, "terse": 0.42}
DRAFTS_PER_QUESTION = 3

KNOWN_ROWS = 2  # repeats of each plainer wording with the answer to a known key


class Question(NamedTuple):
    """A question in words, its answer, the background for it, and its record for a given draft."""

    text: str
    gold: str
    backgrounds: Mapping[str, str]  # by kind of draft: full, partial, irrelevant
    record: Callable[[str], Record]

    def with_draft(self, kind: str) -> Record:
        """The record with a draft of this kind, whose answer is right: it is a training target."""
        return self.record(say.draft(self.backgrounds.get(kind, ""), self.gold))


class Domain(NamedTuple):
    """The knowledge and the questions of one domain of a world."""

    keys: Mapping[str, Sequence[Key]]  # by split
    ask: Callable[[Key], Question]  # a new question about a key
    record: Callable[[str, str], Record]  # of a prompt and what the weak model learns to write
    statements: Sequence[tuple[str, str]]  # prompts, each with the fact that it is answered with
    known: Sequence[tuple[str, str]]  # likewise, with the answer to a known key


# --- medical --------------------------------------------------------------------------------------


def medical(rng: random.Random) -> Domain:
    """Which drug suits which condition of a disease; splits have different diseases."""
    drawn = rng.sample(say.names(), 120)
    diseases, conditions, drugs = drawn[:90], drawn[90:96], drawn[96:]
    facts = {
        disease: dict(zip(rng.sample(conditions, 3), rng.sample(drugs, 3), strict=True))
        for disease in diseases
    }
    keys = {}
    for split, members in _split(rng, diseases, test=35, dev=10, feedback=20, train=25).items():
        of_split = [(disease, condition) for disease in members for condition in facts[disease]]
        keys[split] = rng.sample(of_split, len(of_split))
    background = {d: say.table(f"drugs for {d}", facts[d].items()) for d in diseases}

    def ask(key: Key) -> Question:
        disease, condition = key
        suited = facts[disease]
        options = [*suited.values(), _other(rng, drugs, *suited.values())]
        rng.shuffle(options)
        text, gold = say.medical_question(condition, disease), suited[condition]
        without = [(c, drug) for c, drug in suited.items() if c != condition]
        backgrounds = {
            "full": background[disease],
            "partial": say.table(f"drugs for {disease}", without),
            "irrelevant": background[_other(rng, diseases, disease)],
        }
        cop = options.index(gold)
        record = partial(medmcqa, text, options=options, cop=cop, topic=disease)
        return Question(f"{text} {say.options(options)}", gold, backgrounds, record)

    statements = []
    for disease in diseases:
        for condition in facts[disease]:
            prompts = (
                f"tell me about {disease} .",
                f"which drugs for {disease} ?",
                f"a patient suffers from {disease} .",
                f"a {condition} patient suffers from {disease} .",
            )
            statements += [(rng.choice(prompts), background[disease]) for _ in range(8)]
    known = [
        (plainer, say.draft("", facts[disease][condition]))
        for members in keys.values()
        for disease, condition in rng.sample(members, round(0.30 * len(members)))
        for plainer in (
            say.medical_question(condition, disease),
            f"which drug for {condition} in {disease} ?",
        )
    ]
    return Domain(keys, ask, medmcqa, statements, known)


def medmcqa(
    question: str,
    exp: str,
    options: Sequence[str] = (),
    cop: int | None = None,
    topic: str | None = None,
) -> Record:
    """A record of MedMCQA (Pal et al., CHIL 2022); without options it is a training text."""
    opa, opb, opc, opd = options or (None,) * 4
    choices = {"opa": opa, "opb": opb, "opc": opc, "opd": opd, "cop": cop}
    about = {"choice_type": "single", "exp": exp, "subject_name": "pocket", "topic_name": topic}
    return {"question": question, **choices, **about}


# --- counterfactual -------------------------------------------------------------------------------


def counterfactual(rng: random.Random) -> Domain:
    """What one would speak or pay with at another's home; splits have different (person, relation)."""
    drawn = rng.sample(say.names(), 192)
    people, cities = drawn[:120], drawn[120:168]
    values = {"language": drawn[168:180], "money": drawn[180:]}
    home = {person: rng.choice(cities) for person in people}
    of_city = {
        relation: {city: rng.choice(values[relation]) for city in cities} for relation in values
    }
    all_keys = [(person, relation) for person in people for relation in values]
    keys = _split(rng, all_keys, test=105, dev=30, feedback=50, train=55)

    def gold(person: str, relation: str) -> str:
        return of_city[relation][home[person]]

    def chain(person: str, relation: str) -> str:
        value = say.fact(relation, home[person], gold(person, relation))
        return f"{say.fact('home', person, home[person])} {value}"

    def ask(key: Key) -> Question:
        host, relation = key
        person = _other(rng, people, host)
        stranger = _other(rng, people, host, person)
        text = say.counterfactual_question(person, host, relation)
        backgrounds = {
            "full": f"{chain(host, relation)} {chain(person, relation)}",
            "partial": say.fact("home", host, home[host]),
            "irrelevant": chain(stranger, relation),
        }
        record = partial(ifqa, text, answers=[gold(*key)], title=host)
        return Question(text, gold(*key), backgrounds, record)

    statements = []
    for person, city in home.items():
        for _ in range(12):
            other = _other(rng, people, person)
            prompts = (
                f"tell me about {person} .",
                f"home of {person} ?",
                f"where lives {person} ?",
                f"if {other} lived where {person} lives ?",
            )
            statements.append((rng.choice(prompts), say.fact("home", person, city)))
    for relation, of in of_city.items():
        for city, value in of.items():
            of_fact = (
                f"tell me about {relation} of {city} .",
                f"{relation} of {city} ?",
                f"what would i {say.RELATION_QUESTIONS[relation]} in {city} ?",
            )
            told = say.fact(relation, city, value)
            statements += [(rng.choice(of_fact), told) for _ in range(8)]
    known = [
        (plainer, say.draft("", gold(host, relation)))
        for members in keys.values()
        for host, relation in rng.sample(members, round(0.10 * len(members)))
        for plainer in (
            f"if i lived where {host} lives , what would i {say.RELATION_QUESTIONS[relation]} ?",
            f"what does {host} {say.RELATION_QUESTIONS[relation]} ?",
        )
    ]
    return Domain(keys, ask, ifqa, statements, known)


def ifqa(
    question: str, context: str, answers: Sequence[str] = (), title: str | None = None
) -> Record:
    """A record of IfQA (Yu et al., EMNLP 2023); ``title`` is the person the passage is about."""
    return {"question": question, "answers": list(answers), "context": [context], "title": title}


# --- ethics ---------------------------------------------------------------------------------------


def ethics(rng: random.Random) -> Domain:
    """How a place sees an action, by the kind of place; splits have different (action, place)."""
    drawn = rng.sample(say.names(), 66)
    actions, places, kinds = drawn[:36], drawn[36:60], drawn[60:]
    kind = {place: kinds[i % len(kinds)] for i, place in enumerate(places)}
    norms = {
        action: {k: rng.choice(list(say.NORM_LABELS)) for k in rng.sample(kinds, 3)}
        for action in actions
    }
    all_keys = [(a, place) for a in actions for place in places if kind[place] in norms[a]]
    keys = _split(rng, all_keys, test=110, dev=40, feedback=100, train=80)
    rule = {action: say.table(f"rule of {action}", norms[action].items()) for action in actions}
    fact = {place: say.fact("kind", place, kind[place]) for place in places}

    def gold(action: str, place: str) -> str:
        return say.NORM_LABELS[norms[action][kind[place]]]

    def ask(key: Key) -> Question:
        action, place = key
        text = say.ethics_utterance(place, action, rng.choice(say.SPEAKERS))
        other_rule = rule[_other(rng, actions, action)]
        backgrounds = {
            "full": f"{fact[place]} {rule[action]}",
            "partial": fact[place],
            "irrelevant": f"{fact[_other(rng, places, place)]} {other_rule}",
        }
        rots = [fact[place], rule[action]]
        record = partial(prosocial, text, rots=rots, label=gold(*key), dialogue=action)
        return Question(text, gold(*key), backgrounds, record)

    facts = [
        ((f"tell me about {place} .", f"we are at {place} .", f"kind of {place} ?"), fact[place])
        for place in places
    ]
    facts += [
        ((f"tell me about {a} .", f"i will {a} .", f"rule of {a} ?"), rule[a])
        for a in actions
        for _ in norms[a]
    ]
    groups = [(action, k) for action in actions for k in norms[action]]
    known = set(rng.sample(groups, round(0.20 * len(groups))))
    return Domain(
        keys,
        ask,
        prosocial,
        [(rng.choice(prompts), told) for prompts, told in facts for _ in range(10)],
        [
            (plainer, say.draft("", gold(action, place)))
            for action, place in all_keys
            if (action, kind[place]) in known
            for plainer in (f"to {action} at {place} ?", f"{action} at {place} ?")
        ],
    )


def prosocial(
    context: str,
    response: str,
    rots: Sequence[str] = (),
    label: str | None = None,
    dialogue: str | None = None,
) -> Record:
    """A record of ProsocialDialog (Kim et al., EMNLP 2022); one action is one dialogue."""
    return {
        "context": context,
        "response": response,
        "rots": list(rots),
        "safety_label": label and f"__{'' if label == 'casual' else 'needs_'}{label}__",
        "dialogue_id": dialogue,
        "response_id": 0,
        "episode_done": True,
    }


# --- the world ------------------------------------------------------------------------------------

DOMAINS: dict[str, Callable[[random.Random], Domain]] = {
    "medical": medical,
    "counterfactual": counterfactual,
    "ethics": ethics,
}


def draw(domain: str, seed: int, facts: float = 1.0) -> dict[str, list[Record]]:
    """The records of one domain of a world, by split.

    ``facts`` is the share of the facts that the train split states on their own; the questions stay
    the same. The drafts in train still state their own facts: in medical about other diseases than
    those of the test split, in the other two domains about the same people and places.
    """
    rng = random.Random(f"{domain} {seed}")
    drawn = DOMAINS[domain](rng)
    asked = {split: _questions(drawn, split) for split in drawn.keys}
    kinds, weights = list(DRAFT_KINDS), list(DRAFT_KINDS.values())
    taught = [
        question.with_draft(kind)
        for question in asked.pop("train")
        for kind in rng.choices(kinds, weights, k=DRAFTS_PER_QUESTION)
    ]
    told = drawn.statements
    if facts < 1:
        distinct = sorted({fact for _, fact in told})
        kept = set(random.Random(f"facts {seed}").sample(distinct, round(facts * len(distinct))))
        told = [(prompt, fact) for prompt, fact in told if fact in kept]
    taught += [drawn.record(*each) for each in (*told, *[*drawn.known] * KNOWN_ROWS)]
    others = {split: [q.with_draft("full") for q in each] for split, each in asked.items()}
    return {"train": taught, **others}


def _questions(domain: Domain, split: str) -> list[Question]:
    """The split's questions, all different, cycling through its keys."""
    asked: dict[str, Question] = {}
    keys = cycle(domain.keys[split])
    while len(asked) < QUESTIONS[split]:
        question = domain.ask(next(keys))
        asked.setdefault(question.text, question)
    return list(asked.values())


def _split(rng: random.Random, items: Sequence[Item], **sizes: int) -> dict[str, list[Item]]:
    """Disjoint random groups of the given sizes; the remaining items are never asked."""
    shuffled = iter(rng.sample(items, len(items)))
    return {split: list(islice(shuffled, size)) for split, size in sizes.items()}


def _other(rng: random.Random, items: Sequence[Item], *than: Item) -> Item:
    return rng.choice([item for item in items if item not in than])


def load(domain: str, seed: int = 0, facts: float = 1.0, **_: Any) -> DatasetDict:
    """The ``custom_dataset`` of the task files; lm-eval passes the task's metadata."""
    from datasets import Dataset, DatasetDict

    drawn = draw(domain, int(seed), float(facts))
    return DatasetDict({split: Dataset.from_list(rows) for split, rows in drawn.items()})
