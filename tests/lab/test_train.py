"""Training: what is chosen, what is saved, what is in memory, and that it changes what the model says."""

from __future__ import annotations

import gc
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from cowest_bench.config import ModelSpec
from cowest_bench.errors import ConfigError, ModelError
from cowest_bench.lab import train
from cowest_bench.lab.prefer import TrainingRow
from cowest_bench.lab.train import Trained, align, merge, specialise
from cowest_bench.lab.training import DPOSettings, Lora, SFTSettings
from cowest_bench.models import hflm, local, require_usable, weights_id
from cowest_bench.models.endpoints import open_model
from cowest_bench.models.local import HFLMProvider, Settings
from cowest_bench.models.memory import MEMORY, Memory, Weights
from cowest_bench.pocket import language, llama
from cowest_bench.tasks import Message
from tests.conftest import ROOT

SFT = SFTSettings(
    learning_rate=5e-3,
    epochs=1,
    batch_size=4,
    max_length=192,
    lora=None,
    gradient_checkpointing=False,
)
QUICK = DPOSettings(
    learning_rate=1e-3,
    steps=4,
    eval_steps=2,
    batch_size=4,
    max_length=192,
    gradient_checkpointing=False,
)
THOROUGH = QUICK.model_copy(update={"steps": 20, "eval_steps": 20})


@pytest.fixture
def base(tmp_path: Path) -> ModelSpec:
    """A pocket-sized weak model that has learnt nothing."""
    folder = tmp_path / "base"
    shape = llama.Shape(width=64, layers=2, intermediate=168, embedding_std=0.05, final_norm=1.0)
    llama.initialise(0, shape).save_pretrained(str(folder))
    language.save_tokenizer(folder)
    return ModelSpec(name=str(folder), dtype="float32")


def said(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]


def rows(**answers: str) -> list[TrainingRow]:
    prompts: list[list[Message]] = [
        [{"role": "user", "content": f"tell me about {name} ."}] for name in language.names()[:8]
    ]
    return [
        {"prompt": prompt, **{key: said(text) for key, text in answers.items()}}
        for prompt in prompts
    ]


PAIRS = rows(chosen="draft answer : caution", rejected="draft answer : casual")


def texts(spec: ModelSpec, **settings: float) -> list[str]:
    """What a model says to all prompts, opened as an evaluation opens it."""
    provider = cast(HFLMProvider, open_model(spec).api)
    asked = [provider.render(row["prompt"]) for row in rows()]
    generation: Settings = {"max_gen_toks": 6, **settings}
    return [text for text, _, _ in provider._generate_batch([(p, generation) for p in asked])]


def drafts(spec: ModelSpec) -> list[str]:
    return texts(spec, do_sample=True, temperature=1.0, seed=7)


def tuned_by(score: Callable[[int, ModelSpec], float], base: ModelSpec, folder: Path) -> ModelSpec:
    trained = align(base, PAIRS, folder, THOROUGH, 0, score)
    assert trained.best_step == 20
    return base.model_copy(update={"adapter": str(folder)})


def last(step: int, candidate: ModelSpec) -> float:
    """Likes the longest training best."""
    return float(step)


# --- specialise -----------------------------------------------------------------------------------


def test_a_specialised_model_says_its_rows(base: ModelSpec, tmp_path: Path) -> None:
    settings = SFT.model_copy(update={"epochs": 40})
    told: list[tuple[str, int, int]] = []
    trained = specialise(
        base,
        rows(completion="draft answer : caution"),
        tmp_path / "sft",
        settings,
        seed=0,
        progress=lambda *step: told.append(step),
    )
    assert set(texts(ModelSpec(name=str(tmp_path / "sft")))) == {"draft answer : caution"}
    assert told[-1] == ("sft", 80, 80)
    assert trained.history[-1]["step"] == 80


def test_lora_is_merged_into_the_weights(base: ModelSpec, tmp_path: Path) -> None:
    folder = tmp_path / "sft"
    settings = SFT.model_copy(update={"lora": Lora(rank=4)})
    specialise(base, rows(completion="a"), folder, settings, seed=0)
    assert (folder / "model.safetensors").is_file()
    assert not (folder / "adapter_config.json").exists()
    assert weights_id(ModelSpec(name=str(folder))) != weights_id(base)


def test_the_same_training_gives_the_same_weights(base: ModelSpec, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        specialise(base, rows(completion="a"), tmp_path / name, SFT, seed)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


# --- align ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "best"), [([0.1, 0.5, 0.5], 2), ([0.5, 0.5, 0.1], 0), ([0.1, 0.2, 0.3], 4)]
)
def test_the_first_best_step_is_kept(
    base: ModelSpec, tmp_path: Path, scores: list[float], best: int
) -> None:
    """Step 0, the untuned model, is among the candidates; ties go to the earlier step."""
    given = dict(zip((0, 2, 4), scores, strict=True))
    adapters: dict[int, bytes] = {}

    def score(step: int, candidate: ModelSpec) -> float:
        assert bool(candidate.adapter) == bool(step)
        if candidate.adapter:
            adapters[step] = (Path(candidate.adapter) / "adapter_model.safetensors").read_bytes()
        return given[step]

    folder = tmp_path / "dpo"
    trained = align(base, PAIRS, folder, QUICK, 0, score)
    assert trained == Trained(trained.history, dev_scores=given, best_step=best)
    kept = folder / "adapter_model.safetensors"
    assert (kept.read_bytes() if kept.exists() else None) == adapters.get(best)
    assert not [*folder.glob("checkpoint-*"), *folder.glob("*.bin")]


def test_training_ends_when_patience_does(base: ModelSpec, tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"steps": 8, "patience": 2})
    trained = align(base, PAIRS, tmp_path / "dpo", settings, 0, lambda step, _: -step)
    assert trained.dev_scores == {0: 0, 2: -2, 4: -4}


def fresh_copy(spec: ModelSpec, folder: Path) -> ModelSpec:
    """The same model at another place, which nothing in memory stands for."""
    shutil.copytree(spec.path, folder / "base")
    if spec.adapter is not None:
        shutil.copytree(spec.adapter, folder / "adapter")
    adapter = str(folder / "adapter") if spec.adapter else None
    return spec.model_copy(update={"name": str(folder / "base"), "adapter": adapter})


def heard(spec: ModelSpec) -> tuple[list[str], list[str], list[float]]:
    """Greedy texts, sampled texts and log-probabilities."""
    provider = cast(HFLMProvider, open_model(spec).api)
    requests = [(provider.render(row["prompt"]), " caution") for row in rows()]
    return texts(spec), drafts(spec), provider._logprob_batch(requests)


@pytest.mark.parametrize(
    ("answers", "stored", "opened", "checkpointing"),
    [
        (PAIRS, torch.float32, "float32", True),
        (rows(completion="draft answer : caution"), torch.float32, "auto", False),
        (PAIRS, torch.bfloat16, "auto", True),  # trained in float32 on a CPU, which loses nothing
        (PAIRS, torch.float32, "bfloat16", False),  # the trained weights have to be kept as well
    ],
)
def test_a_lent_model_answers_as_its_saved_checkpoint(
    base: ModelSpec,
    tmp_path: Path,
    answers: list[TrainingRow],
    stored: torch.dtype,
    opened: str,
    checkpointing: bool,
) -> None:
    """Text by text, and in log-probabilities to the last bit."""
    AutoModelForCausalLM.from_pretrained(base.path, dtype=stored).save_pretrained(base.path)
    said_at: dict[int, tuple[list[str], list[str], list[float]]] = {}

    def score(step: int, candidate: ModelSpec) -> float:
        said_at[step] = heard(candidate)
        assert said_at[step] == heard(fresh_copy(candidate, tmp_path / f"copy-{step}"))
        return step

    changes = {"learning_rate": 1e-2, "gradient_checkpointing": checkpointing}
    settings = QUICK.model_copy(update=changes)
    spec = base.model_copy(update={"dtype": opened})
    align(spec, answers, tmp_path / "dpo", settings, 0, score)
    assert len({str(said) for said in said_at.values()}) == 3


def test_being_lent_does_not_change_the_training(base: ModelSpec, tmp_path: Path) -> None:
    def listening(step: int, candidate: ModelSpec) -> float:
        texts(candidate)
        drafts(candidate)
        return float(step)

    settings = QUICK.model_copy(update={"gradient_checkpointing": True})
    histories = []
    for name, score in (("deaf", last), ("listening", listening)):
        trained = align(base, PAIRS, tmp_path / name, settings, 0, score)
        timeless = [{k: v for k, v in log.items() if "_per_" not in k} for log in trained.history]
        histories.append([{k: v for k, v in log.items() if "time" not in k} for log in timeless])
    assert histories[0] == histories[1]
    weights = [
        (tmp_path / n / "adapter_model.safetensors").read_bytes() for n in ("deaf", "listening")
    ]
    assert weights[0] == weights[1]


def alive(vocabulary: torch.Size) -> int:
    """How many models with embeddings of a size are in memory."""
    gc.collect()
    return sum(
        type(each) is LlamaForCausalLM and each.get_input_embeddings().weight.shape == vocabulary
        for each in gc.get_objects()
    )


def test_the_base_is_in_memory_once(base: ModelSpec, strong: ModelSpec, tmp_path: Path) -> None:
    """Also if it was evaluated just before and is in use; another model stays where it is."""
    for weights in MEMORY.loaded:
        MEMORY.forget(ModelSpec(name=weights.path))
    before, other = open_model(base), open_model(strong)
    size = cast(HFLMProvider, before.api).lm.model.get_input_embeddings().weight.shape
    strong_lm = cast(HFLMProvider, other.api).lm
    counted = []

    def score(step: int, candidate: ModelSpec) -> float:
        texts(candidate)
        counted.append(alive(size))
        assert cast(HFLMProvider, open_model(strong).api).lm is strong_lm
        return float(step)

    align(base, PAIRS, tmp_path / "dpo", QUICK, 0, score)
    assert counted == [1, 1, 1]
    assert alive(size) == 0
    assert len(texts(base)) == len(rows())  # loaded again for those who go on using it
    assert cast(HFLMProvider, before.api).lm is cast(HFLMProvider, open_model(base).api).lm


def test_lending_takes_no_room_from_others(
    base: ModelSpec, strong: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lent model is in memory anyway, whatever the bound."""
    memory = Memory(bound=Weights.of(strong).size_on_disk() + 1000)
    for module in (local, hflm, train):
        monkeypatch.setattr(module, "MEMORY", memory)
    strong_lm = cast(HFLMProvider, open_model(strong).api).lm

    def score(step: int, candidate: ModelSpec) -> float:
        texts(candidate)
        assert cast(HFLMProvider, open_model(strong).api).lm is strong_lm
        return float(step)

    align(base, PAIRS, tmp_path / "dpo", QUICK, 0, score)
    assert memory.loaded == (Weights.of(strong),)


def test_an_error_while_scoring_gives_the_model_back(base: ModelSpec, tmp_path: Path) -> None:
    def fails(step: int, candidate: ModelSpec) -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        align(base, PAIRS, tmp_path / "dpo", QUICK, 0, fails)
    assert len(texts(base)) == len(rows())


def test_alignment_changes_what_the_model_prefers(base: ModelSpec, tmp_path: Path) -> None:
    assert texts(tuned_by(last, base, tmp_path / "dpo")) != texts(base)


# --- what is saved can be used elsewhere ----------------------------------------------------------


def test_merged_weights_say_the_same(base: ModelSpec, tmp_path: Path) -> None:
    tuned = tuned_by(last, base, tmp_path / "dpo")
    merge(tuned, tmp_path / "merged")
    merged = ModelSpec(name=str(tmp_path / "merged"), dtype="float32")
    assert texts(merged) == texts(tuned) != texts(base)


def test_a_second_round_needs_the_first_merged(base: ModelSpec, tmp_path: Path) -> None:
    tuned = tuned_by(last, base, tmp_path / "dpo")
    with pytest.raises(ModelError, match="merge it first"):
        align(tuned, PAIRS, tmp_path / "again", QUICK, 0, last)
    with pytest.raises(ModelError, match="merge it first"):
        specialise(tuned, rows(completion="a"), tmp_path / "again", SFT, 0)
    with pytest.raises(ModelError, match="nothing to merge"):
        merge(base, tmp_path / "merged")


def test_an_adapter_fits_only_the_model_it_was_trained_on(base: ModelSpec, tmp_path: Path) -> None:
    """What SFT made is the base of the adapter, not what SFT started from."""
    folder = tmp_path / "sft-0123"
    specialise(base, rows(completion="a"), folder, SFT, 0)
    trained = ModelSpec(name=str(folder), dtype="float32")
    tuned = tuned_by(last, trained, tmp_path / "dpo")
    written = json.loads((tmp_path / "dpo" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == str(folder.resolve())
    require_usable(tuned)
    moved = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(folder, moved)
    require_usable(tuned.model_copy(update={"name": str(moved)}))
    for name in (base.name, f"vllm/{base.name}", "vllm/ORG/sft-0124"):
        with pytest.raises(ModelError, match=r"was trained on .*sft-0123 and does not fit"):
            require_usable(tuned.model_copy(update={"name": name}))
    require_usable(tuned.model_copy(update={"name": f"vllm/{folder}"}))
    shutil.rmtree(folder)  # as on another machine
    require_usable(tuned.model_copy(update={"name": "vllm/ORG/sft-0123"}))


def test_the_example_for_vllm_puts_the_adapter_on_what_it_was_trained_on(
    base: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example's folders, made as a training makes them."""
    example = yaml.safe_load((ROOT / "examples" / "vllm.yaml").read_text())
    weak = ModelSpec.model_validate(example["weak"])
    monkeypatch.chdir(tmp_path)
    folders = Path("results/models/sft-0123456789ab"), Path("results/models/dpo-0123456789ab")
    specialise(base, rows(completion="a"), folders[0], SFT, 0)
    align(ModelSpec(name=str(folders[0])), PAIRS, folders[1], QUICK, 0, last)
    assert str(weak.adapter) == str(folders[1])
    require_usable(weak)
    raw = weak.model_copy(update={"name": "vllm/meta-llama/Meta-Llama-3-8B-Instruct"})
    with pytest.raises(ModelError, match="does not fit meta-llama/Meta-Llama-3-8B-Instruct"):
        require_usable(raw)


# --- what is refused, and what is left alone ------------------------------------------------------


@pytest.mark.parametrize(
    "training", [partial(specialise, settings=SFT), partial(align, settings=QUICK, score=last)]
)
def test_nothing_to_train_on_is_one_sentence(
    training: Callable[..., Trained], strong: ModelSpec, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="nothing to train"):
        training(strong, [], tmp_path, seed=0)


def test_training_leaves_the_environment_alone(base: ModelSpec, tmp_path: Path) -> None:
    before = dict(os.environ)
    specialise(base, rows(completion="a"), tmp_path / "sft", SFT, 0)
    align(base, PAIRS, tmp_path / "dpo", QUICK, 0, lambda step, spec: float(len(texts(spec))))
    assert dict(os.environ) == before
