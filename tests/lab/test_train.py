"""Training: what is cached, what is chosen, and that it changes what the model says."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from cowest_bench import models
from cowest_bench.config import ModelSpec
from cowest_bench.errors import ConfigError
from cowest_bench.lab.train import DPOSettings, Lora, Row, SFTSettings, dpo, merged, sft
from cowest_bench.pocket.demo import fresh_weak, method
from cowest_bench.store import Results

QUICK = method().dpo.model_copy(update={"steps": 4, "eval_steps": 2, "batch_size": 4})


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def rows(**answers: str) -> list[Row]:
    from cowest_bench.pocket.language import names

    prompts = [[{"role": "user", "content": f"tell me about {name} ."}] for name in names()[:8]]
    return [
        {"prompt": prompt, **{key: said(text) for key, text in answers.items()}}
        for prompt in prompts
    ]


def greedy(spec: ModelSpec) -> list[str]:
    provider = models.HFLMProvider(spec.path, adapter=spec.adapter, dtype="float32")
    asked = [provider.render(row["prompt"]) for row in rows()]
    return [
        text for text, _, _ in provider._generate_batch([(p, {"max_gen_toks": 6}) for p in asked])
    ]


def test_sft_learns_its_rows_and_is_made_once(results: Results) -> None:
    base = fresh_weak(0, results)
    settings = method().sft.model_copy(update={"epochs": 40, "batch_size": 4})
    train = rows(completion="draft answer : caution")
    trained = sft(base, train, results=results, settings=settings)
    assert set(greedy(trained)) == {"draft answer : caution"}
    stamp = Path(str(trained.card)).stat().st_mtime_ns
    assert sft(base, train, results=results, settings=settings) == trained
    assert Path(str(trained.card)).stat().st_mtime_ns == stamp


def test_who_wants_the_same_training_waits_for_it(results: Results) -> None:
    base, train = fresh_weak(0, results), rows(completion="a")
    settings = method().sft.model_copy(update={"epochs": 1})
    folder = Path(sft(base, train, results=results, settings=settings).path)
    weights = (folder / "model.safetensors").stat().st_mtime_ns
    card = (folder / "card.json").read_text()
    second = Thread(
        target=sft, args=(base, train), kwargs={"results": results, "settings": settings}
    )
    with results.claimed(folder.name):
        (folder / "card.json").unlink()  # as before the end of a training
        second.start()
        second.join(0.5)
        assert second.is_alive()
        (folder / "card.json").write_text(card)
    second.join()
    assert (folder / "model.safetensors").stat().st_mtime_ns == weights
    (folder / "card.json").unlink()  # what an interrupted one left is made anew
    sft(base, train, results=results, settings=settings)
    assert (folder / "model.safetensors").stat().st_mtime_ns > weights


def test_lora_sft_is_merged(results: Results) -> None:
    settings = SFTSettings(**method().sft.model_dump() | {"epochs": 1, "lora": Lora(rank=4)})
    base = fresh_weak(0, results)
    trained = sft(base, rows(completion="a"), results=results, settings=settings)
    folder = Path(trained.path)
    assert (folder / "model.safetensors").is_file()
    assert not (folder / "adapter_config.json").exists()
    assert models.identity(trained)["weights"] != models.identity(base)["weights"]


def test_unfinished_training_is_made_anew(results: Results) -> None:
    base = fresh_weak(0, results)
    settings = method().sft.model_copy(update={"epochs": 1})
    trained = sft(base, rows(completion="a"), results=results, settings=settings)
    Path(str(trained.card)).unlink()
    (Path(trained.path) / "model.safetensors").write_bytes(b"half")
    assert sft(base, rows(completion="a"), results=results, settings=settings) == trained
    assert len(greedy(trained)) == 8


@pytest.mark.parametrize(
    ("scores", "best"), [([0.1, 0.5, 0.5], 2), ([0.5, 0.5, 0.1], 0), ([0.1, 0.2, 0.3], 4)]
)
def test_dpo_keeps_the_first_best_step(results: Results, scores: list[float], best: int) -> None:
    """Step 0, the untuned model, is among the candidates; ties go to the earlier step."""
    given = iter(scores)
    pairs = rows(chosen="draft answer : caution", rejected="draft answer : casual")
    base = fresh_weak(0, results)

    def tune() -> ModelSpec:
        return dpo(base, pairs, results=results, settings=QUICK, score=lambda _: next(given))

    tuned = tune()
    card: dict[str, Any] = json.loads(Path(str(tuned.card)).read_text())
    assert card["best_step"] == best
    assert list(card["dev_scores"].values()) == scores
    assert bool(tuned.adapter) == bool(best)
    assert tune() == tuned  # from its card; no score is asked for again


def test_dpo_changes_what_the_model_prefers(results: Results) -> None:
    pairs = rows(chosen="draft answer : caution", rejected="draft answer : casual")
    base = fresh_weak(0, results)
    tuned = dpo(
        base,
        pairs,
        results=results,
        settings=QUICK.model_copy(update={"steps": 20, "eval_steps": 20}),
        score=lambda spec: float(spec.adapter is not None),
    )
    assert greedy(tuned) != greedy(base)


def test_a_second_round_starts_from_the_first(results: Results) -> None:
    """A tuned model is merged first: its adapter must not be lost under the next one."""
    pairs = rows(chosen="draft answer : caution", rejected="draft answer : casual")
    settings = QUICK.model_copy(update={"steps": 20, "eval_steps": 20})
    base = fresh_weak(0, results)
    tuned = dpo(
        base, pairs, results=results, settings=settings, score=lambda s: float(bool(s.adapter))
    )
    whole = merged(tuned, results)
    assert whole.adapter is None
    assert greedy(whole) == greedy(tuned) != greedy(base)
    candidates: list[ModelSpec] = []

    def score(spec: ModelSpec) -> float:
        candidates.append(spec)
        return 0.0

    assert dpo(tuned, pairs, results=results, settings=QUICK, score=score).name == whole.name
    assert candidates[0].name == whole.name


def test_nothing_to_train_on_is_one_sentence(results: Results, strong: ModelSpec) -> None:
    with pytest.raises(ConfigError, match="nothing to train on"):
        dpo(strong, [], results=results, settings=DPOSettings(), score=lambda _: 0.0)
