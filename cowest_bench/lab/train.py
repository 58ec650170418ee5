"""Train weak models: ``sft`` and ``dpo``, thin over trl and peft.

A trained model lies in a folder named by a hash of all it was made from (weights, rows, settings,
seed, versions), so that training again is a cache hit. Its card is written last: a folder without
``card.json`` is the rest of an interrupted training and is made anew.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from cowest_bench.config import ModelSpec
from cowest_bench.errors import ConfigError
from cowest_bench.lab.evaluate import Progress
from cowest_bench.models import check, identity
from cowest_bench.store import Results, content_hash, replaced
from cowest_bench.tasks import Message

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer

Row = dict[str, list[Message]]  # prompt and completion, or prompt, chosen and rejected


class Lora(BaseModel):
    """A low-rank adapter on all linear layers (Hu et al., 2022)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = 16
    alpha: int = 32


class SFTSettings(BaseModel):
    """Supervised fine-tuning on prompt-completion rows; the loss is on the completion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = 2e-4
    epochs: float = 3
    batch_size: int = 16
    max_length: int = 2048
    lora: Lora | None = Lora()
    gradient_checkpointing: bool = True


class DPOSettings(BaseModel):
    """Direct preference optimisation (Rafailov et al., 2023) with a LoRA adapter.

    ``loss_type`` names losses of trl; the ``sft`` term keeps the chosen drafts likely. Every
    ``eval_steps`` the adapter is scored on the dev split, and training ends after ``patience``
    scores without a new best one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = 5e-5
    steps: int = 60
    eval_steps: int = 10
    patience: int = 6
    batch_size: int = 32
    beta: float = 0.1
    loss_type: tuple[str, ...] = ("sigmoid", "sft")
    loss_weights: tuple[float, ...] = (1.0, 1.0)
    max_length: int = 2048
    lora: Lora = Lora()
    gradient_checkpointing: bool = True


def sft(
    model: ModelSpec,
    rows: Sequence[Row],
    *,
    results: Results,
    settings: SFTSettings | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> ModelSpec:
    """Specialise a model on prompt-completion rows; returns a model without adapter.

    A LoRA adapter is merged into the weights, so that a later DPO can use the model with its own
    adapter switched off as the reference.

    Raises:
        ConfigError: If there are no rows.
    """
    settings = settings or SFTSettings()
    model = merged(model, results)
    folder, made_from = _folder("sft", model, rows, settings, seed, results)
    card = folder / "card.json"
    trained = model.model_copy(
        update={
            "name": str(folder),
            "adapter": None,
            "revision": None,
            "card": str(card),
            "base": model.base_label,
        }
    )
    with _to_make(folder, results) as wanted:
        if wanted:
            started = time.monotonic()
            log = _specialise(model, rows, settings, folder, seed, progress)
            history = {"seconds": time.monotonic() - started, "history": log}
            _write_card(card, made_from | history)
    return trained


def _specialise(
    model: ModelSpec,
    rows: Sequence[Row],
    settings: SFTSettings,
    folder: Path,
    seed: int,
    progress: Progress | None,
) -> Any:
    """Train, save the whole model, and return the trainer's log."""
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(
        **_arguments(settings, folder, seed),
        num_train_epochs=settings.epochs,
        save_strategy="no",
    )
    trainer = SFTTrainer(
        _load(model),
        args=arguments,
        train_dataset=_dataset(rows),
        processing_class=_tokenizer(model),
        peft_config=_peft(settings.lora) if settings.lora else None,
    )
    _train(trainer, "sft", progress)
    tuned: Any = trainer.model
    if settings.lora:
        tuned = tuned.merge_and_unload()
    tuned.save_pretrained(str(folder))
    _tokenizer(model).save_pretrained(str(folder))
    return trainer.state.log_history


def dpo(
    model: ModelSpec,
    rows: Sequence[Row],
    *,
    results: Results,
    score: Callable[[ModelSpec], float],
    settings: DPOSettings | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> ModelSpec:
    """Align a model with preference rows; returns it with the adapter that ``score`` likes best.

    Args:
        model: What is tuned; with its adapter switched off it is also the reference.
        rows: Conversational ``prompt``, ``chosen`` and ``rejected``; or ``prompt`` and
            ``completion``, for the control that imitates the best drafts instead.
        results: Where the adapter's folder goes.
        score: The collaboration's score on the dev split with a candidate as the weak model. The
            untuned model is a candidate too, so tuning can never choose something worse on dev.
        settings: How to train.
        seed: Of the adapter's initialisation and the order of the rows.
        progress: Told how many steps are done.

    Raises:
        ConfigError: If there are no rows.
    """
    settings = settings or DPOSettings()
    model = merged(model, results)
    folder, made_from = _folder("dpo", model, rows, settings, seed, results)
    card = folder / "card.json"
    with _to_make(folder, results) as wanted:
        if wanted:
            started = time.monotonic()
            trainer = _preference_trainer(model, rows, settings, folder, seed)
            candidates = _Candidates(model, score, settings.patience)
            _align(trainer, candidates, folder, progress)
            dev = {str(s): value for s, (value, _) in candidates.scored.items()}
            history: dict[str, Any] = {"dev_scores": dev, "best_step": candidates.best()[0]}
            history["seconds"] = time.monotonic() - started
            _write_card(card, made_from | history | {"history": trainer.state.log_history})
    step = json.loads(card.read_text(encoding="utf-8"))["best_step"]
    return _tuned(model, folder, step)


def _align(
    trainer: Trainer, candidates: _Candidates, folder: Path, progress: Progress | None
) -> None:
    """Train, and leave the best candidate's adapter in the folder."""
    trainer.add_callback(candidates.callback())
    _train(trainer, "dpo", progress)
    _, chosen = candidates.best()
    if chosen.adapter:
        shutil.copytree(chosen.adapter, folder, dirs_exist_ok=True)
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def merged(model: ModelSpec, results: Results) -> ModelSpec:
    """A model with its adapter, if it has one, merged into the weights.

    A later round of training starts from there: what it would otherwise add to, and compare with, is
    the model without the adapter.
    """
    if model.adapter is None:
        return model
    made_from = {"kind": "merged", "model": identity(model)}
    folder = results.models / f"merged-{content_hash(made_from)}"
    with _to_make(folder, results) as wanted:
        if wanted:
            from peft import PeftModel

            tuned = PeftModel.from_pretrained(_load(model), model.adapter).merge_and_unload()
            tuned.save_pretrained(str(folder))
            _tokenizer(model).save_pretrained(str(folder))
            _write_card(folder / "card.json", made_from)
    base = model.base_label
    return model.model_copy(
        update={"name": str(folder), "adapter": None, "revision": None, "base": base}
    )


def _tuned(model: ModelSpec, folder: Path, step: int) -> ModelSpec:
    """The model with the adapter of the chosen step; step 0 is the model as it was."""
    return model.model_copy(
        update={
            "adapter": str(folder) if step else None,
            "card": str(folder / "card.json"),
            "base": model.base_label,
        }
    )


def _preference_trainer(
    model: ModelSpec, rows: Sequence[Row], settings: DPOSettings, folder: Path, seed: int
) -> Trainer:
    """Trl's DPO trainer, or its SFT trainer where the rows have no rejected drafts."""
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    arguments: dict[str, Any] = {
        **_arguments(settings, folder, seed),
        "max_steps": settings.steps,
        "save_strategy": "steps",
        "save_steps": settings.eval_steps,
        "save_only_model": True,
    }
    common: dict[str, Any] = {
        "model": _load(model),
        "train_dataset": _dataset(rows),
        "processing_class": _tokenizer(model),
        "peft_config": _peft(settings.lora),
    }
    trainer: Trainer
    if "rejected" in rows[0]:
        losses = {
            "beta": settings.beta,
            "loss_type": list(settings.loss_type),
            "loss_weights": list(settings.loss_weights),
            "precompute_ref_log_probs": True,
        }
        trainer = DPOTrainer(args=DPOConfig(**losses, **arguments), **common)
    else:
        trainer = SFTTrainer(args=SFTConfig(**arguments), **common)
    return trainer


class _Candidates:
    """Scores checkpoints on the dev split as they are saved, the untuned model being step 0."""

    def __init__(
        self, model: ModelSpec, score: Callable[[ModelSpec], float], patience: int
    ) -> None:
        self.model = model
        self.score = score
        self.patience = patience
        self.scored: dict[int, tuple[float, ModelSpec]] = {0: (score(model), model)}

    def best(self) -> tuple[int, ModelSpec]:
        """The first step with the highest score."""
        step = max(self.scored, key=lambda s: (self.scored[s][0], -s))
        return step, self.scored[step][1]

    def callback(self) -> Any:
        """What trl calls after each save."""
        from transformers import TrainerCallback

        outer = self

        class Callback(TrainerCallback):
            def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
                step = int(state.global_step)
                checkpoint = Path(args.output_dir) / f"checkpoint-{step}"
                candidate = outer.model.model_copy(update={"adapter": str(checkpoint)})
                outer.scored[step] = (outer.score(candidate), candidate)
                later = [s for s in outer.scored if s > outer.best()[0]]
                control.should_training_stop |= len(later) >= outer.patience
                return control

        return Callback()


# --- what both share ------------------------------------------------------------------------------


def _folder(
    kind: str,
    model: ModelSpec,
    rows: Sequence[Row],
    settings: BaseModel,
    seed: int,
    results: Results,
) -> tuple[Path, dict[str, Any]]:
    """The folder of a training, and what the training is made from."""
    if not rows:
        raise ConfigError(f"There is nothing to train on: {kind} was given no rows.")
    check(model)
    made_from = {
        "kind": kind,
        "model": identity(model),
        "rows": content_hash(list(rows)),
        "n_rows": len(rows),
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft")},
    }
    return results.models / f"{kind}-{content_hash(made_from)}", made_from


@contextmanager
def _to_make(folder: Path, results: Results) -> Iterator[bool]:
    """Whether a model's folder has still to be made, which no other process does meanwhile.

    What an interrupted training left is removed.
    """
    with results.claimed(folder.name):
        made = (folder / "card.json").is_file()
        if not made and folder.is_dir():
            shutil.rmtree(folder)
        yield not made


def _arguments(settings: SFTSettings | DPOSettings, folder: Path, seed: int) -> dict[str, Any]:
    """What both trainers are told; trl's own defaults would truncate, report and use bfloat16."""
    import torch

    accelerated = torch.accelerator.is_available()
    return {
        "output_dir": str(folder),
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "per_device_train_batch_size": settings.batch_size,
        "max_length": settings.max_length,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "bf16": accelerated,
        "use_cpu": not accelerated,
        "logging_steps": 5,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": seed,
        "data_seed": seed,
        "dataloader_pin_memory": accelerated,
    }


def _load(model: ModelSpec) -> PreTrainedModel:
    """Weights to train, always in float32 on a CPU and read from disk.

    (A model copied in memory after an earlier trainer did not change under DPO.)
    """
    import torch
    from transformers import AutoModelForCausalLM

    wanted = "auto" if torch.accelerator.is_available() else torch.float32
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        model.path,
        revision=model.revision,
        dtype=wanted,
        use_safetensors=True,
        trust_remote_code=model.remote_code,
    )
    return loaded


def _tokenizer(model: ModelSpec) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(
        model.path, revision=model.revision, trust_remote_code=model.remote_code
    )


def _peft(lora: Lora) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def _dataset(rows: Sequence[Row]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(list(rows))


def _train(trainer: Trainer, what: str, progress: Progress | None) -> None:
    from transformers import PrinterCallback, TrainerCallback

    class Report(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if progress is not None:
                progress(what, int(state.global_step), int(state.max_steps))

    trainer.remove_callback(PrinterCallback)  # it prints to standard output
    trainer.add_callback(Report())
    trainer.train()


def _write_card(path: Path, card: dict[str, Any]) -> None:
    """A model card for readers, and the same as JSON, which marks the folder as finished."""
    library = "peft" if card["kind"] == "dpo" else "transformers"
    shown = json.dumps({k: v for k, v in card.items() if k != "history"}, indent=1)
    path.with_name("README.md").write_text(
        f"---\nlibrary_name: {library}\ntags: [cowest-bench, {card['kind']}]\n---\n\n"
        f"# {path.parent.name}\n\nTrained by cowest-bench from:\n\n```json\n{shown}\n```\n",
        encoding="utf-8",
    )
    with replaced(path) as temporary:
        temporary.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
