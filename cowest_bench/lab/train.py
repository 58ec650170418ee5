"""Train weak models: ``specialise`` (SFT), ``align`` (DPO) and ``merge``, thin over trl and peft.

Functions of a model, rows, settings and a seed, that write a model into a folder. What the folder is
called, and whether it is there already, is the lab's affair.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cowest_bench.config import ModelSpec, Progress
from cowest_bench.errors import ConfigError, ModelError
from cowest_bench.lab.prefer import TrainingRow
from cowest_bench.lab.training import DPOSettings, Lora, SFTSettings
from cowest_bench.models.identity import adapter_folder, pinned, require_usable
from cowest_bench.models.memory import MEMORY

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import (
        GenerationConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
        Trainer,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )

Score: TypeAlias = Callable[[int, ModelSpec], float]
"""What a candidate is worth on the dev split, given the step and the candidate."""

#: Files of a checkpoint that an adapter does not need; the first is a pickle.
_LEFT_OUT = ("training_args.bin", "trainer_state.json")


@dataclass(frozen=True)
class Trained:
    """What a training tells of itself.

    Attributes:
        history: The trainer's log: losses and learning rates by step.
        dev_scores: Of ``align``: what each candidate scored, by step; step 0 is the untuned model.
        best_step: Of ``align``: the first step with the highest score. The folder holds its adapter,
            or none if it is step 0.
    """

    history: list[dict[str, float]]
    dev_scores: dict[int, float] = field(default_factory=dict)
    best_step: int = 0


def specialise(
    spec: ModelSpec,
    rows: Sequence[TrainingRow],
    folder: Path,
    settings: SFTSettings,
    seed: int,
    progress: Progress | None = None,
) -> Trained:
    """Fine-tune a model on prompt-completion rows and save it, with its tokenizer, in a folder.

    A LoRA adapter is merged into the weights, so that a later ``align`` can use the model with its own
    adapter switched off as the reference.

    Raises:
        ConfigError: If there are no rows.
        ModelError: If the model cannot be used, or has an adapter that is not merged.
    """
    from trl import SFTConfig, SFTTrainer

    spec = _trainable(spec, rows)
    arguments = SFTConfig(
        **_arguments(settings, folder, seed),
        num_train_epochs=settings.epochs,
        save_strategy="no",
    )
    trainer: Trainer = SFTTrainer(
        _load(spec),
        args=arguments,
        train_dataset=_dataset(rows),
        processing_class=_tokenizer(spec),
        peft_config=_lora_config(settings.lora) if settings.lora else None,
    )
    _train(trainer, "sft", progress)
    tuned: Any = trainer.model  # typed as a module, or as nothing at all
    if settings.lora:
        tuned = tuned.merge_and_unload()
    _save(tuned, spec, folder)
    return Trained(history=trainer.state.log_history)


def align(
    spec: ModelSpec,
    rows: Sequence[TrainingRow],
    folder: Path,
    settings: DPOSettings,
    seed: int,
    score: Score,
    progress: Progress | None = None,
) -> Trained:
    """Align a model with preference rows; leaves the LoRA adapter that ``score`` likes best in a folder.

    Only one copy of the model is in memory: while a candidate is scored, opening it gives the model
    under training.

    Args:
        spec: What is tuned; with its adapter switched off it is also the reference.
        rows: Conversational ``prompt``, ``chosen`` and ``rejected``; or ``prompt`` and ``completion``,
            for the control that imitates the best drafts instead.
        folder: For the adapter, and for checkpoints meanwhile.
        settings: How to train.
        seed: Of the adapter's initialisation and the order of the rows.
        score: Called for step 0, the untuned model, and every ``eval_steps``. Since the untuned model is
            a candidate too, tuning can never choose something worse on dev.
        progress: Told how many steps are done.

    Raises:
        ConfigError: If there are no rows.
        ModelError: If the model cannot be used, or has an adapter that is not merged.
    """
    spec = _trainable(spec, rows)
    MEMORY.forget(spec)
    trainer, generation = _preference_trainer(spec, rows, settings, folder, seed)
    candidates = _Candidates(spec, trainer, generation, score, settings.patience)
    candidates.score_step(0, spec)
    trainer.add_callback(candidates.callback())
    _train(trainer, "dpo", progress)
    best = candidates.best
    _keep_adapter(folder, best, spec)
    history = trainer.state.log_history
    del trainer, candidates.trainer  # before others are loaded; models are full of reference cycles
    gc.collect()
    return Trained(history=history, dev_scores=candidates.scores, best_step=best)


def merge(spec: ModelSpec, folder: Path) -> None:
    """Save a model with its adapter merged into the weights, for a server or for another training.

    Raises:
        ModelError: If the model cannot be used, or has no adapter.
    """
    from peft import PeftModel

    require_usable(spec)
    spec, adapter = pinned(spec), adapter_folder(spec)
    if adapter is None:
        raise ModelError(f"There is nothing to merge: {spec.name} has no adapter.")
    _save(PeftModel.from_pretrained(_load(spec), adapter).merge_and_unload(), spec, folder)


# --- candidates -----------------------------------------------------------------------------------


class _Candidates:
    """Scores checkpoints on the dev split as they are saved, and ends a training that has passed its best.

    Attributes:
        trainer: Whose model is lent to the evaluation.
        scores: By step.
    """

    def __init__(
        self,
        spec: ModelSpec,
        trainer: Trainer,
        generation: GenerationConfig,
        score: Score,
        patience: int,
    ) -> None:
        self.trainer = trainer
        self.scores: dict[int, float] = {}
        self._spec = spec
        self._generation = generation
        self._score = score
        self._patience = patience

    @property
    def best(self) -> int:
        """The first step with the highest score."""
        return max(self.scores, key=lambda step: (self.scores[step], -step))

    def score_step(self, step: int, candidate: ModelSpec) -> None:
        """Score the model as it is now; it has just been saved as the candidate."""
        from cowest_bench.models.live import lent

        with lent(candidate, self.trainer.model, self._generation):
            self.scores[step] = self._score(step, candidate)

    def callback(self) -> TrainerCallback:
        """What the trainer calls after each save."""
        from transformers import TrainerCallback

        outer = self

        class ScoreOnSave(TrainerCallback):
            def on_save(
                self,
                args: TrainingArguments,
                state: TrainerState,
                control: TrainerControl,
                **_: object,
            ) -> TrainerControl:
                step = int(state.global_step)
                checkpoint = _checkpoint(Path(str(args.output_dir)), step)
                candidate = outer._spec.model_copy(update={"adapter": str(checkpoint)})
                outer.score_step(step, candidate)
                later = [scored for scored in outer.scores if scored > outer.best]
                control.should_training_stop |= len(later) >= outer._patience
                return control

        return ScoreOnSave()


def _checkpoint(folder: Path, step: int) -> Path:
    return folder / f"checkpoint-{step}"  # as the trainer names it


def _keep_adapter(folder: Path, step: int, spec: ModelSpec) -> None:
    """Leave the adapter of the best step, with what a server needs to find its base."""
    if step:
        leave_out = shutil.ignore_patterns(*_LEFT_OUT)
        shutil.copytree(_checkpoint(folder, step), folder, ignore=leave_out, dirs_exist_ok=True)
        file = folder / "adapter_config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        base = Path(spec.path)
        config["base_model_name_or_path"] = str(base.resolve()) if base.is_dir() else spec.path
        file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def _preference_trainer(
    spec: ModelSpec, rows: Sequence[TrainingRow], settings: DPOSettings, folder: Path, seed: int
) -> tuple[Trainer, GenerationConfig]:
    """Trl's DPO trainer, or its SFT trainer where the rows have no rejected drafts.

    And how the base itself generates, which the trainers change.
    """
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    arguments: dict[str, Any] = {
        **_arguments(settings, folder, seed),
        "max_steps": settings.steps,
        "save_strategy": "steps",
        "save_steps": settings.eval_steps,
        "save_only_model": True,
    }
    model = _load(spec)
    generation = deepcopy(model.generation_config)
    common: dict[str, Any] = {
        "model": model,
        "train_dataset": _dataset(rows),
        "processing_class": _tokenizer(spec),
        "peft_config": _lora_config(settings.lora),
    }
    if "rejected" not in rows[0]:
        return SFTTrainer(args=SFTConfig(**arguments), **common), generation
    losses = {
        "beta": settings.beta,
        "loss_type": list(settings.loss_type),
        "loss_weights": list(settings.loss_weights),
        "precompute_ref_log_probs": True,
    }
    return DPOTrainer(args=DPOConfig(**losses, **arguments), **common), generation


# --- what all of them share -----------------------------------------------------------------------


def _trainable(spec: ModelSpec, rows: Sequence[TrainingRow]) -> ModelSpec:
    """The model, pinned; refuses what cannot be trained."""
    if not rows:
        raise ConfigError(f"There is nothing to train {spec.name} on: no rows were given.")
    if spec.adapter is not None:
        raise ModelError(
            f"{spec.name} has an adapter, which another training would lose; merge it first."
        )
    require_usable(spec)
    return pinned(spec)


def _save(model: PreTrainedModel, spec: ModelSpec, folder: Path) -> None:
    model.save_pretrained(str(folder))
    _tokenizer(spec).save_pretrained(str(folder))


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


def _load(spec: ModelSpec) -> PreTrainedModel:
    """Weights to train, in float32 on a CPU, read from disk.

    (A model copied in memory after an earlier trainer did not change under DPO.)
    """
    import torch
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        spec.path,
        revision=spec.revision,
        dtype="auto" if torch.accelerator.is_available() else torch.float32,
        use_safetensors=True,
        trust_remote_code=spec.remote_code,
    )
    return model


def _tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        spec.path, revision=spec.revision, trust_remote_code=spec.remote_code
    )
    return tokenizer


def _lora_config(lora: Lora) -> LoraConfig:
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def _dataset(rows: Sequence[TrainingRow]) -> Dataset:
    from datasets import Dataset

    return Dataset.from_list(list(rows))


def _train(trainer: Trainer, what: str, progress: Progress | None) -> None:
    from transformers import PrinterCallback, TrainerCallback

    class Report(TrainerCallback):
        def on_step_end(
            self,
            args: TrainingArguments,
            state: TrainerState,
            control: TrainerControl,
            **_: object,
        ) -> None:
            if progress is not None:
                progress(what, int(state.global_step), int(state.max_steps))

    trainer.remove_callback(PrinterCallback)  # it prints to standard output
    trainer.add_callback(Report())
    trainer.train()
