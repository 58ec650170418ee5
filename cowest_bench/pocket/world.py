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
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from cowest_bench.pocket import language as say

if TYPE_CHECKING:
    from datasets import DatasetDict

Record: TypeAlias = dict[str, Any]
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

    def draft(self, kind: str) -> str:
        """The draft of a kind; its answer is always right, because it is a training target."""
        return say.draft(self.backgrounds.get(kind, ""), self.gold)


class Domain(NamedTuple):
    """The knowledge and the questions of one domain of a world."""

    keys: Mapping[str, Sequence[tuple[str, str]]]  # by split
    ask: Callable[[Any], Question]  # a new question about a key
    statements: Sequence[Record]
    known: Sequence[Record]


def splits(domain: Domain, rng: random.Random) -> dict[str, list[Record]]:
    """The records of a domain by split."""
    asked = {split: list(_questions(domain, split)) for split in domain.keys}
    kinds, weights = list(DRAFT_KINDS), list(DRAFT_KINDS.values())
    taught = [
        question.record(question.draft(kind))
        for question in asked.pop("train")
        for kind in rng.choices(kinds, weights, k=DRAFTS_PER_QUESTION)
    ]
    return {
        "train": taught + list(domain.statements) + list(domain.known) * KNOWN_ROWS,
        **{
            split: [q.record(q.draft("full")) for q in questions]
            for split, questions in asked.items()
        },
    }


def _questions(domain: Domain, split: str) -> Iterator[Question]:
    """The split's questions, all different, cycling through its keys."""
    seen: set[str] = set()
    for key in islice(cycle(domain.keys[split]), 50 * QUESTIONS[split]):
        question = domain.ask(key)
        if question.text not in seen:
            seen.add(question.text)
            yield question
        if len(seen) == QUESTIONS[split]:
            return
    raise ValueError(f"{split}: fewer than {QUESTIONS[split]} different questions can be asked")


def _split(rng: random.Random, items: Sequence[Item], **sizes: int) -> dict[str, list[Item]]:
    """Disjoint random groups of the given sizes; the remaining items are never asked."""
    shuffled = iter(rng.sample(items, len(items)))
    return {split: list(islice(shuffled, size)) for split, size in sizes.items()}


def _other(rng: random.Random, items: Sequence[Item], *than: Item) -> Item:
    return rng.choice([item for item in items if item not in than])


# --- medical --------------------------------------------------------------------------------------


def medical(rng: random.Random) -> Domain:
    """Which drug suits which condition of a disease; splits have different diseases."""
    drawn = rng.sample(say.names(), 120)
    diseases, conditions, drugs = drawn[:90], drawn[90:96], drawn[96:]
    facts = {
        disease: dict(zip(rng.sample(conditions, 3), rng.sample(drugs, 3), strict=True))
        for disease in diseases
    }
    groups = _split(rng, diseases, test=35, dev=10, feedback=20, train=25)
    keys = {
        split: rng.sample(all_keys, len(all_keys))
        for split, members in groups.items()
        for all_keys in [
            [(disease, condition) for disease in members for condition in facts[disease]]
        ]
    }
    background = {d: say.medical_background(d, list(facts[d].items())) for d in diseases}

    def ask(key: tuple[str, str]) -> Question:
        disease, condition = key
        gold = facts[disease][condition]
        of_disease = list(facts[disease].values())
        options = [*of_disease, _other(rng, drugs, *of_disease)]
        rng.shuffle(options)
        without = [(c, drug) for c, drug in facts[disease].items() if c != condition]
        text = say.medical_question(condition, disease)
        return Question(
            f"{text} {say.options(options)}",
            gold,
            {
                "full": background[disease],
                "partial": say.medical_background(disease, without),
                "irrelevant": background[_other(rng, diseases, disease)],
            },
            partial(medmcqa, text, options=options, cop=options.index(gold), topic=disease),
        )

    return Domain(
        keys=keys,
        ask=ask,
        statements=[
            medmcqa(
                rng.choice(say.medical_statement_prompts(condition, disease)), background[disease]
            )
            for disease in diseases
            for condition in facts[disease]
            for _ in range(8)
        ],
        known=[
            medmcqa(prompt, say.draft("", facts[disease][condition]))
            for members in keys.values()
            for disease, condition in rng.sample(members, round(0.30 * len(members)))
            for prompt in say.medical_known_prompts(condition, disease)
        ],
    )


def medmcqa(
    question: str,
    exp: str,
    options: Sequence[str] | None = None,
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
        fact = say.city_fact(relation, home[person], gold(person, relation))
        return f"{say.home(person, home[person])} {fact}"

    def ask(key: tuple[str, str]) -> Question:
        host, relation = key
        person = _other(rng, people, host)
        stranger = _other(rng, people, host, person)
        text = say.counterfactual_question(person, host, relation)
        return Question(
            text,
            gold(host, relation),
            {
                "full": f"{chain(host, relation)} {chain(person, relation)}",
                "partial": say.home(host, home[host]),
                "irrelevant": chain(stranger, relation),
            },
            partial(ifqa, text, answers=[gold(host, relation)], title=host),
        )

    homes = [
        ifqa(
            rng.choice(say.home_prompts(person, _other(rng, people, person))),
            say.home(person, city),
        )
        for person, city in home.items()
        for _ in range(12)
    ]
    values_told = [
        ifqa(rng.choice(say.city_prompts(relation, city)), say.city_fact(relation, city, value))
        for relation, of in of_city.items()
        for city, value in of.items()
        for _ in range(8)
    ]
    return Domain(
        keys=keys,
        ask=ask,
        statements=homes + values_told,
        known=[
            ifqa(prompt, say.draft("", gold(host, relation)))
            for members in keys.values()
            for host, relation in rng.sample(members, round(0.10 * len(members)))
            for prompt in say.counterfactual_known_prompts(host, relation)
        ],
    )


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
    rule = {action: say.rule_of(action, list(norms[action].items())) for action in actions}

    def gold(action: str, place: str) -> str:
        return say.NORM_LABELS[norms[action][kind[place]]]

    def rules(action: str, place: str) -> list[str]:
        return [say.kind_of(place, kind[place]), rule[action]]

    def ask(key: tuple[str, str]) -> Question:
        action, place = key
        text = say.ethics_utterance(place, action, rng.choice(say.SPEAKERS))
        elsewhere = rules(_other(rng, actions, action), _other(rng, places, place))
        return Question(
            text,
            gold(action, place),
            {
                "full": " ".join(rules(action, place)),
                "partial": say.kind_of(place, kind[place]),
                "irrelevant": " ".join(elsewhere),
            },
            partial(prosocial, text, rots=rules(*key), label=gold(*key), dialogue=action),
        )

    facts = [(say.kind_prompts(p), say.kind_of(p, kind[p])) for p in places]
    facts += [(say.rule_prompts(a), rule[a]) for a in actions for _ in norms[a]]
    groups = [(action, k) for action in actions for k in norms[action]]
    known = set(rng.sample(groups, round(0.20 * len(groups))))
    return Domain(
        keys=keys,
        ask=ask,
        statements=[prosocial(rng.choice(w), fact) for w, fact in facts for _ in range(10)],
        known=[
            prosocial(prompt, say.draft("", gold(action, place)))
            for action, place in all_keys
            if (action, kind[place]) in known
            for prompt in say.ethics_known_prompts(place, action)
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

    Args:
        domain: A key of ``DOMAINS``.
        seed: Draws the world.
        facts: Share of the facts that the train split states on their own; the questions stay the
            same. The drafts in train still state their own facts: in medical about other diseases than
            those of the test split, in the other two domains about the same people and places.
    """
    rng = random.Random(f"{domain} {seed}")
    drawn = DOMAINS[domain](rng)
    if facts < 1:
        drawn = drawn._replace(statements=_some(drawn.statements, facts, seed))
    return splits(drawn, rng)


def _some(statements: Sequence[Record], share: float, seed: int) -> list[Record]:
    """All wordings of a random share of the facts."""
    told = [
        str(record.get("exp") or record.get("response") or record["context"])
        for record in statements
    ]
    distinct = sorted(set(told))
    kept = set(random.Random(f"facts {seed}").sample(distinct, round(share * len(distinct))))
    return [record for record, fact in zip(statements, told, strict=True) if fact in kept]


def load(domain: str, seed: int = 0, facts: float = 1.0, **_: Any) -> DatasetDict:
    """The ``custom_dataset`` of the task files; lm-eval passes the task's metadata."""
    from datasets import Dataset, DatasetDict

    drawn = draw(domain, int(seed), float(facts))
    return DatasetDict({split: Dataset.from_list(rows) for split, rows in drawn.items()})
