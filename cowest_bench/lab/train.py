"""Train weak models: ``specialise`` (SFT), ``align`` (DPO) and ``merge``, thin over trl and peft.

Functions of a model, rows, settings and a seed, that write a model into a folder. What the folder is
called, and whether it is there already, is the lab's affair. All of them raise ``ModelError`` for a model
that cannot be used, or whose adapter has to be merged first; and ``ConfigError`` if there are no rows.
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
    from peft import PeftModel
    from transformers import (
        PreTrainedModel,
        PreTrainedTokenizerBase,
        Trainer,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )

Score: TypeAlias = Callable[[int, ModelSpec], float]
"""What a candidate is worth on the dev split, given the step and the candidate."""


@dataclass(frozen=True)
class Trained:
    """What a training tells of itself; ``sft`` knows no scores."""

    history: list[dict[str, float]]  # the trainer's log: losses and learning rates by step
    dev_scores: dict[int, float] = field(default_factory=dict)  # of each candidate, by step
    best_step: int = 0  # the first with the highest score; the folder holds its adapter


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
    """
    from trl import SFTConfig, SFTTrainer

    spec = _trainable(spec, rows)
    arguments = _arguments(settings, folder, seed)
    trainer = SFTTrainer(
        args=SFTConfig(**arguments, num_train_epochs=settings.epochs, save_strategy="no"),
        **_trained_on(spec, _load(spec), rows, settings.lora),
    )
    _train(trainer, "sft", progress)
    tuned: Any = trainer.model  # typed as a module, or as nothing at all
    _save(tuned.merge_and_unload() if settings.lora else tuned, spec, folder)
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

    Rows have a ``prompt``, ``chosen`` and ``rejected``; or, for the control that imitates the best drafts
    instead (by trl's SFT trainer), a ``prompt`` and ``completion``. ``score`` is called for step 0 and every
    ``eval_steps``. Step 0 is the untuned model, which has no adapter: since it is a candidate too, tuning
    can never choose something worse on dev.
    """
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from cowest_bench.models.hflm import lent

    spec = _trainable(spec, rows)
    MEMORY.forget(spec)
    model = _load(spec)
    generation = deepcopy(model.generation_config)  # the base's own, which trainers change
    arguments: dict[str, Any] = {
        **_arguments(settings, folder, seed),
        "max_steps": settings.steps,
        "save_strategy": "steps",
        "save_steps": settings.eval_steps,
        "save_only_model": True,
    }
    given = _trained_on(spec, model, rows, settings.lora)
    trainer: Trainer
    if "rejected" in rows[0]:
        losses = settings.model_dump(mode="json", include={"beta", "loss_type", "loss_weights"})
        config = DPOConfig(**losses, **arguments, precompute_ref_log_probs=True)
        trainer = DPOTrainer(args=config, **given)
    else:
        trainer = SFTTrainer(args=SFTConfig(**arguments), **given)
    scores: dict[int, float] = {}

    def best() -> int:
        return max(scores, key=lambda step: (scores[step], -step))

    def try_candidate(step: int, model: PeftModel) -> bool:
        """Score a checkpoint; returns whether the best one lies too far behind to go on."""
        saved = str(folder / f"checkpoint-{step}")  # as the trainer names it
        candidate = spec.model_copy(update={"adapter": saved if step else None})
        with lent(candidate, model, generation):
            scores[step] = score(step, candidate)
        return sum(scored > best() for scored in scores) >= settings.patience

    try_candidate(0, trainer.model)
    _train(trainer, "dpo", progress, try_candidate)
    _keep_adapter(folder, best(), spec)
    history = trainer.state.log_history
    del trainer, model, given  # before others are loaded; models are full of reference cycles
    gc.collect()
    return Trained(history=history, dev_scores=scores, best_step=best())


def merge(spec: ModelSpec, folder: Path) -> None:
    """Save a model with its adapter merged into the weights, for a server or for another training."""
    from peft import PeftModel

    require_usable(spec)
    spec, adapter = pinned(spec), adapter_folder(spec)
    if adapter is None:
        raise ModelError(f"There is nothing to merge: {spec.name} has no adapter.")
    _save(PeftModel.from_pretrained(_load(spec), adapter).merge_and_unload(), spec, folder)


def _keep_adapter(folder: Path, step: int, spec: ModelSpec) -> None:
    """Leave the adapter of the best step, with what a server needs to find its base."""
    if step:
        leave_out = shutil.ignore_patterns("training_args.bin", "trainer_state.json")
        best = folder / f"checkpoint-{step}"
        shutil.copytree(best, folder, ignore=leave_out, dirs_exist_ok=True)
        file = folder / "adapter_config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        base = Path(spec.path)
        config["base_model_name_or_path"] = str(base.resolve()) if base.is_dir() else spec.path
        file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


# --- what all of them share -----------------------------------------------------------------------


def accelerated() -> bool:
    """Whether this machine has an accelerator."""
    import torch

    return torch.accelerator.is_available()


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


def _arguments(settings: SFTSettings | DPOSettings, folder: Path, seed: int) -> dict[str, Any]:
    """What both trainers are told; trl's own defaults would truncate, report and use bfloat16."""
    return {
        **settings.model_dump(include={"learning_rate", "max_length", "gradient_checkpointing"}),
        "output_dir": str(folder),
        "lr_scheduler_type": "cosine",
        "per_device_train_batch_size": settings.batch_size,
        "bf16": accelerated(),
        "use_cpu": not accelerated(),
        "logging_steps": 5,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": seed,
        "data_seed": seed,
        "dataloader_pin_memory": accelerated(),
    }


def _trained_on(
    spec: ModelSpec, model: PreTrainedModel, rows: Sequence[TrainingRow], lora: Lora | None
) -> dict[str, Any]:
    """What both trainers are given: the model, its tokenizer, an adapter to train, and the rows."""
    from datasets import Dataset
    from peft import LoraConfig

    adapter = lora and LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return {
        "model": model,
        "train_dataset": Dataset.from_list(list(rows)),
        "processing_class": _tokenizer(spec),
        "peft_config": adapter,
    }


def _load(spec: ModelSpec) -> PreTrainedModel:
    """Weights to train, in float32 on a CPU, read from disk.

    (A model copied in memory after an earlier trainer did not change under DPO.)
    """
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        spec.path,
        revision=spec.revision,
        dtype="auto" if accelerated() else "float32",
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


def _save(model: PreTrainedModel, spec: ModelSpec, folder: Path) -> None:
    model.save_pretrained(str(folder))
    _tokenizer(spec).save_pretrained(str(folder))


def _train(
    trainer: Trainer,
    what: str,
    progress: Progress | None,
    stop_after: Callable[[int, PeftModel], bool] | None = None,
) -> None:
    """Train; ``stop_after`` is asked about every checkpoint that was saved."""
    from transformers import PrinterCallback, TrainerCallback

    class Report(TrainerCallback):
        def on_step_end(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
        ) -> None:
            if progress is not None:
                progress(what, int(state.global_step), int(state.max_steps))

        def on_save(
            self,
            args: TrainingArguments,
            state: TrainerState,
            control: TrainerControl,
            **given: Any,
        ) -> None:
            if stop_after is not None and stop_after(int(state.global_step), given["model"]):
                control.should_training_stop = True

    trainer.remove_callback(PrinterCallback)  # it prints to standard output
    trainer.add_callback(Report())
    trainer.train()
