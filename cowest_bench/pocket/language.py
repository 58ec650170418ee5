"""The language of the pocket world: its words, its sentences, its tokenizer.

Functions of this module write every question, draft and answer that the strong model sees. So it is
trained on exactly the sentences that it later reads, with other names in them. The words mean nothing
outside the world, so no pretrained model has seen its facts.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
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
        syllables = range(rng.choice((2, 3, 3)))
        name = "".join(rng.choice("bdfgjklmnprstvz") + rng.choice("aeiou") for _ in syllables)
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


# --- sentences ------------------------------------------------------------------------------------

NOT_SURE = "not sure"


def draft(background: str, answer: str) -> str:
    """What a weak model writes: background knowledge, if any, then its own answer."""
    before = f"background : {background} " if background else ""
    return f"{before}draft answer : {answer}"


def refinement(used: str, answer: str) -> str:
    """What the strong model writes: the facts it uses (or ``NOT_SURE``), then the answer."""
    return f"refine : {used} . answer : {answer}"


def fact(relation: str, of: str, value: str) -> str:
    """A single fact: the home of a person, the language of a city, the kind of a place."""
    return f"{relation} of {of} {value} ."


def table(heading: str, pairs: Iterable[tuple[str, str]]) -> str:
    """Facts of one kind; key and value are adjacent, so that a lookup is enough."""
    return f"{heading} : " + " , ".join(f"{key} {value}" for key, value in pairs) + " ."


def medical_question(condition: str, disease: str) -> str:
    return f"a {condition} patient suffers from {disease} . best drug ?"


def options(choices: Sequence[str]) -> str:
    return " ".join(f"{key} {choice}" for key, choice in zip(OPTION_LETTERS, choices, strict=True))


def counterfactual_question(person: str, host: str, relation: str) -> str:
    asked = RELATION_QUESTIONS[relation]
    return f"if {person} lived where {host} lives , what would {person} {asked} ?"


def ethics_utterance(place: str, action: str, speaker: str) -> str:
    return f"we are at {place} . {speaker} says : i will {action} here . label ?"
