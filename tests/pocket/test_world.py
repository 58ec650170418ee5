"""The pocket world: disjoint keys, speakable sentences, nothing the same in two seeds."""

from __future__ import annotations

import random
from typing import Any

import pytest

from cowest_bench.pocket import episodes, language, world

DOMAINS = sorted(world.DOMAINS)


def said(row: dict[str, Any]) -> str:
    """Everything of a record that a model reads or learns to write."""
    texts: list[str] = []
    for value in row.values():
        texts += value if isinstance(value, list) else [value] if isinstance(value, str) else []
    return " ".join(text for text in texts if not text.startswith("__"))


@pytest.mark.parametrize("domain", DOMAINS)
def test_same_seed_same_world_other_seed_other_world(domain: str) -> None:
    assert world.draw(domain, 7) == world.draw(domain, 7)
    one, other = world.draw(domain, 7)["test"], world.draw(domain, 8)["test"]
    assert not {said(row) for row in one} & {said(row) for row in other}


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("seed", [0, 11])
def test_sizes_and_words(domain: str, seed: int) -> None:
    splits = world.draw(domain, seed)
    for split, count in world.QUESTIONS.items():
        if split != "train":
            assert len(splits[split]) == count
    spoken = {word for rows in splits.values() for row in rows for word in said(row).split()}
    assert spoken - {"single", "pocket"} <= set(language.words())


@pytest.mark.parametrize("domain", DOMAINS)
def test_no_question_is_asked_in_two_splits(domain: str) -> None:
    """Nor is any test question among what the weak model was taught."""
    splits = world.draw(domain, 1)
    field = "context" if domain == "ethics" else "question"
    options = ("opa", "opb", "opc", "opd")

    def asked(row: dict[str, Any]) -> tuple[Any, ...]:
        return (row[field], *(row.get(option) for option in options))

    for split in ("feedback", "dev", "test"):
        others = [s for s in splits if s != split]
        here = {asked(row) for row in splits[split]}
        assert len(here) == len(splits[split])
        assert not here & {asked(row) for other in others for row in splits[other]}


def test_keys_are_disjoint() -> None:
    for make in world.DOMAINS.values():
        keys = make(random.Random(5)).keys
        every = [key for members in keys.values() for key in members]
        assert len(every) == len(set(every))


def test_whole_diseases_are_held_out() -> None:
    keys = world.medical(random.Random(5)).keys
    diseases = [{disease for disease, _ in members} for members in keys.values()]
    assert sum(map(len, diseases)) == len(set.union(*diseases)) == 90


@pytest.mark.parametrize("domain", sorted(episodes.DOMAINS))
def test_episodes_can_be_answered_only_from_their_background(domain: str) -> None:
    """A sufficient background names the answer; the draft's own answer is right only by chance."""
    rng = random.Random(0)
    right = 0
    for _ in range(300):
        prompt, completion, _ = episodes.with_draft(rng, domain, "full")
        background, _, drafted = prompt.partition("background : ")[2].partition(" draft answer : ")
        gold = completion.rpartition(" answer : ")[2]
        norm = {label: norm for norm, label in language.NORM_LABELS.items()}.get(gold, gold)
        assert norm in background.split()
        right += drafted == gold
    assert right < 150


def test_tokenizer_splits_nothing_and_keeps_spaces() -> None:
    tokenizer = language.tokenizer()
    text = language.medical_question("bopodo", "zofofar").replace("bopodo", language.names()[0])
    text = text.replace("zofofar", language.names()[1])
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text.split())
    assert tokenizer.decode(ids) == text
    assert tokenizer.unk_token_id not in ids


def test_shipped_tokenizer_is_the_one_in_the_code() -> None:
    from transformers import AutoTokenizer

    from cowest_bench.pocket.demo import STRONG

    shipped = AutoTokenizer.from_pretrained(str(STRONG))
    assert shipped.get_vocab() == language.tokenizer().get_vocab()
    assert shipped.chat_template == language.CHAT_TEMPLATE


@pytest.mark.slow
def test_train_strong_learns_and_saves(tmp_path: Any) -> None:
    """A few steps from the seed: the loss falls, and what is saved can be loaded."""
    from transformers import AutoModelForCausalLM

    from cowest_bench.pocket import train_strong

    model, history = train_strong.train(seed=0, steps=12)
    assert history[-1]["step"] == 12
    model.save_pretrained(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).num_parameters() == 831_616
    assert next(tmp_path.glob("*.safetensors")).stat().st_size < 2_000_000


def test_half_of_the_facts_changes_only_what_is_told() -> None:
    """All wordings of half of the facts are gone; what is asked, and its answers, are the same."""
    for domain in world.DOMAINS:
        whole, half = world.draw(domain, 5), world.draw(domain, 5, facts=0.5)
        assert {split: half[split] == rows for split, rows in whole.items()} == {
            split: split != "train" for split in whole
        }
        told = len(whole["train"]) - len(half["train"])
        stated = len(world.DOMAINS[domain](random.Random(f"{domain} 5")).statements)
        assert 0.4 < told / stated < 0.6
