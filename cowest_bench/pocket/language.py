"""The language of the pocket world: its words, its sentences, its tokenizer.

Functions of this module write every question, draft and answer of the world. So the strong model is
trained on exactly the sentences that it later reads, with other names in them. The words mean nothing
outside the world, so no pretrained model has seen its facts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

OPTION_LETTERS = ("A", "B", "C", "D")

#: The norm of a place for an action, and the ProsocialDialog label that follows from it.
NORM_LABELS = {"fine": "casual", "rude": "caution", "banned": "intervention"}
LABELS = tuple(NORM_LABELS.values())

#: Relations of a city, with the verb phrase that asks for each.
RELATION_QUESTIONS = {"language": "speak", "money": "pay with"}

SPEAKERS = ("friend", "boss", "cousin", "neighbour", "sister", "brother", "teacher", "child")

MAX_LENGTH = 192  # tokens; longer than any prompt with its answer

PAD, BOS, EOS, UNK, USER, ASSISTANT = "<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<assistant>"
SPECIAL_TOKENS = (PAD, BOS, EOS, UNK, USER, ASSISTANT)

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + ' ' + eos_token }}{% endgeneration %}"
    "{% else %}"
    "{{ ' <user> ' + message['content'] + ' <assistant> ' }}"
    "{% endif %}"
    "{% endfor %}"
)

_TEMPLATE_WORDS = """
    a patient suffers from best drug drugs for if lived where lives what would home of language
    money speak pay with we are at says i will here label kind rule background draft answer
    refine not sure which tell me about in does to : . , ?
"""


@cache
def names(count: int = 320, seed: int = 15188) -> tuple[str, ...]:
    """Fictional names such as ``bopodo``: the same list for every world."""
    rng = random.Random(seed)
    taken: dict[str, None] = {}
    while len(taken) < count:
        syllables = rng.choice((2, 3, 3))
        name = "".join(
            rng.choice("bdfgjklmnprstvz") + rng.choice("aeiou") for _ in range(syllables)
        )
        taken[name + rng.choice(("", "", "r", "l", "n"))] = None
    return tuple(taken)


def words() -> list[str]:
    """The whole vocabulary, in the order of its token ids."""
    rest = (*_TEMPLATE_WORDS.split(), *OPTION_LETTERS, *NORM_LABELS, *LABELS, *SPEAKERS)
    return [*SPECIAL_TOKENS, *dict.fromkeys(rest), *names()]


def tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer with a chat template: every word is one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words())}, unk_token=UNK))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,  # " ." must stay a word of its own
        padding_side="left",
        model_max_length=MAX_LENGTH,
    )


def save_tokenizer(folder: Path) -> None:
    """Write the tokenizer's files into a model folder."""
    tokenizer().save_pretrained(str(folder))


# --- drafts and answers ---------------------------------------------------------------------------


def draft(background: str, answer: str) -> str:
    """What a weak model writes: background knowledge, if any, then its own answer."""
    said = [f"background : {background}"] if background else []
    return " ".join([*said, f"draft answer : {answer}"])


def refinement(used: str, answer: str) -> str:
    """What the strong model writes: the facts it uses (or ``not sure``), then the answer."""
    return f"refine : {used} . answer : {answer}"


NOT_SURE = "not sure"


# --- medical --------------------------------------------------------------------------------------


def medical_question(condition: str, disease: str) -> str:
    return f"a {condition} patient suffers from {disease} . best drug ?"


def options(choices: Sequence[str]) -> str:
    return " ".join(
        f"{letter} {choice}" for letter, choice in zip(OPTION_LETTERS, choices, strict=True)
    )


def medical_background(disease: str, drugs: Sequence[tuple[str, str]]) -> str:
    """Which drug suits which condition; key and value are adjacent, so that a lookup is enough."""
    return f"drugs for {disease} : " + " , ".join(f"{c} {x}" for c, x in drugs) + " ."


def medical_statement_prompts(condition: str, disease: str) -> tuple[str, ...]:
    """Prompts for which the weak model learns the facts about a disease."""
    return (
        f"tell me about {disease} .",
        f"which drugs for {disease} ?",
        f"a patient suffers from {disease} .",
        f"a {condition} patient suffers from {disease} .",
    )


def medical_known_prompts(condition: str, disease: str) -> tuple[str, ...]:
    """Plainer wordings, without options; the weak model learns some answers in these."""
    return (medical_question(condition, disease), f"which drug for {condition} in {disease} ?")


# --- counterfactual -------------------------------------------------------------------------------


def counterfactual_question(person: str, host: str, relation: str) -> str:
    asked = RELATION_QUESTIONS[relation]
    return f"if {person} lived where {host} lives , what would {person} {asked} ?"


def home(person: str, city: str) -> str:
    return f"home of {person} {city} ."


def city_fact(relation: str, city: str, value: str) -> str:
    return f"{relation} of {city} {value} ."


def home_prompts(person: str, other: str) -> tuple[str, ...]:
    """Prompts for which the weak model learns where a person lives."""
    return (
        f"tell me about {person} .",
        f"home of {person} ?",
        f"where lives {person} ?",
        f"if {other} lived where {person} lives ?",
    )


def city_prompts(relation: str, city: str) -> tuple[str, ...]:
    """Prompts for which the weak model learns what a city speaks or pays with."""
    return (
        f"tell me about {relation} of {city} .",
        f"{relation} of {city} ?",
        f"what would i {RELATION_QUESTIONS[relation]} in {city} ?",
    )


def counterfactual_known_prompts(host: str, relation: str) -> tuple[str, ...]:
    """Plainer wordings, without a second person; the weak model learns some answers in these."""
    asked = RELATION_QUESTIONS[relation]
    return (
        f"if i lived where {host} lives , what would i {asked} ?",
        f"what does {host} {asked} ?",
    )


# --- ethics ---------------------------------------------------------------------------------------


def ethics_utterance(place: str, action: str, speaker: str) -> str:
    return f"we are at {place} . {speaker} says : i will {action} here . label ?"


def kind_of(place: str, kind: str) -> str:
    return f"kind of {place} {kind} ."


def rule_of(action: str, norms: Sequence[tuple[str, str]]) -> str:
    """How each kind of place sees the action; key and value are adjacent."""
    return f"rule of {action} : " + " , ".join(f"{kind} {norm}" for kind, norm in norms) + " ."


def kind_prompts(place: str) -> tuple[str, ...]:
    """Prompts for which the weak model learns the kind of a place."""
    return (f"tell me about {place} .", f"we are at {place} .", f"kind of {place} ?")


def rule_prompts(action: str) -> tuple[str, ...]:
    """Prompts for which the weak model learns how places see an action."""
    return (f"tell me about {action} .", f"i will {action} .", f"rule of {action} ?")


def ethics_known_prompts(place: str, action: str) -> tuple[str, ...]:
    """Plainer wordings, without a scene; the weak model learns some answers in these."""
    return (f"to {action} at {place} ?", f"{action} at {place} ?")
