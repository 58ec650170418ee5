"""Train the pocket world's strong model, whose weights the package ships.

    python -m cowest_bench.pocket.train_strong --out DIR            # four minutes, two cores
    python -m cowest_bench.pocket.train_strong --out DIR --seed 1   # another model of the same kind

Trains a Llama of 0.8M parameters from scratch on the episodes of ``episodes.py``. It learns to look up
facts in its prompt and never sees a fact of an evaluated world. A model this small learns that within
400 steps if two heads start out attending to the previous token (``look_back``) and most of the first
rows are key-value drills. On drills alone, 98% of the values were right after 200 steps with these
heads, and 12% after 300 steps without them. The loss of an episode is low long before the skill is
there, so progress is reported as exact-chain accuracy: the share of answerable episodes in which every
token is right. Training needs a C++ compiler (``torch.compile``) and two idle cores; with anything
else running it takes several times as long.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cowest_bench.pocket import episodes, language, llama

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

SHAPE = llama.Shape(width=128, layers=4, intermediate=336, embedding_std=1.0, final_norm=0.1)
STEPS = 1500  # nearly there at 400; the decaying rate at the end brings the rest
BATCH = 64
LENGTH = 72  # tokens; slightly longer than the longest row (a drill)
LEARNING_RATE = 2e-3
WARM_UP = 100
EASY_STEPS = 300  # most rows are drills and nearly all episodes can be answered until then
FINAL_SHARES = (0.12, episodes.DRAFT_KINDS["full"])  # of drills, and of such episodes, afterwards
LOOKING_BACK = 2  # heads of the first layer
PEAK = 4.0  # size of their biases: scores fall by 2.3 one step away from the previous token
IGNORED = -100


def look_back(model: LlamaForCausalLM) -> None:
    """Make LOOKING_BACK heads of the first layer attend to the previous token, by their biases.

    Under rotary embeddings, a key bias that equals the query bias rotated by one position gives the
    score sum(cos(w * (distance - 1))) over the frequencies w, which peaks at distance one. Training may
    change these weights; with this start the model quickly learns to find the value of a key.
    """
    import torch

    attention = model.model.layers[0].self_attn
    pairs = SHAPE.width // llama.HEADS // 2
    turn = llama.ROPE_THETA ** (-torch.arange(pairs) / pairs)
    size = torch.where(torch.arange(pairs) < pairs // 2, PEAK, 0.0)  # slow ones are too flat
    with torch.no_grad():
        for bias, turned in ((attention.q_proj.bias, 0 * turn), (attention.k_proj.bias, turn)):
            heads = bias.view(llama.HEADS, 2, pairs)[:LOOKING_BACK]
            heads.copy_(torch.stack([size * turned.cos(), size * turned.sin()]).expand_as(heads))


def encode(batch: list[episodes.Episode]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels, both (batch, LENGTH); only tokens that the model writes have labels."""
    import torch

    ids = torch.zeros(len(batch), LENGTH, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    vocabulary = {word: i for i, word in enumerate(language.words())}
    for row, (prompt, completion, trained) in enumerate(batch):
        read = f"{language.BOS} {language.USER} {prompt} {language.ASSISTANT}".split()
        tokens = [vocabulary[word] for word in (*read, *completion.split(), language.EOS)]
        ids[row, : len(tokens)] = torch.tensor(tokens)
        for place in range(len(read), len(tokens)):
            if trained is None or [*trained, False][place - len(read)]:
                labels[row, place] = tokens[place]
    return ids, labels


def draw(rng: random.Random, step: int) -> list[episodes.Episode]:
    """The batch of a step: drills and easy episodes first, then harder ones."""
    drill_share, full_share = (0.8, 0.9) if step < EASY_STEPS else FINAL_SHARES
    return [
        episodes.drill(rng) if rng.random() < drill_share else episodes.episode(rng, full_share)
        for _ in range(BATCH)
    ]


def learning_rate(step: int, steps: int) -> float:
    """Warm-up, constant up to 70% of the steps, then a cosine down to zero."""
    if step < WARM_UP:
        return LEARNING_RATE * (step + 1) / WARM_UP
    decay = max(0.0, (step / steps - 0.7) / 0.3)
    return LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * decay))


def chain_accuracy(model: Any, rows: int = 200) -> dict[str, float]:
    """Share of answerable held-out episodes, by domain, in which every written token is right."""
    import torch

    result = {}
    for name in (*episodes.DOMAINS, "drill"):
        rng = random.Random(f"held out {name}")
        batch = [
            episodes.drill(rng) if name == "drill" else episodes.with_draft(rng, name, "full")
            for _ in range(rows)
        ]
        ids, labels = encode(batch)
        with torch.no_grad():
            predicted = model(input_ids=ids).logits[:, :-1].argmax(-1)
        right = (predicted == labels[:, 1:]) | (labels[:, 1:] == IGNORED)
        result[name] = right.all(1).float().mean().item()
    return result


def train(seed: int, steps: int = STEPS) -> tuple[LlamaForCausalLM, list[dict[str, float]]]:
    """Train a strong model; returns it in bfloat16 with the history of its accuracy.

    The forward and backward passes run in bfloat16 and the optimiser on float32 copies. So the shipped
    weights are the trained ones, at half the size.
    """
    import torch

    torch.use_deterministic_algorithms(True)  # identical weights, where torch can
    rng = random.Random(seed)
    model = llama.initialise(seed, SHAPE)
    look_back(model)
    model.bfloat16()
    model.set_attn_implementation("eager")  # twice as fast as sdpa in bfloat16 on a CPU
    parameters = list(model.parameters())
    masters = [p.detach().float().requires_grad_() for p in parameters]
    optimizer = torch.optim.AdamW(masters, betas=(0.9, 0.98), weight_decay=0.01)
    compiled = torch.compile(model)
    history = []
    for step in range(steps):
        ids, labels = encode(draw(rng, step))
        logits = compiled(input_ids=ids).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
        )
        loss.backward()
        for master, parameter in zip(masters, parameters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        torch.nn.utils.clip_grad_norm_(masters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        optimizer.step()
        with torch.no_grad():
            for master, parameter in zip(masters, parameters, strict=True):
                parameter.copy_(master)
        if (step + 1) % 100 == 0 or step + 1 == steps:
            history.append({"step": step + 1, "loss": loss.item(), **chain_accuracy(model)})
            shown = "  ".join(f"{name} {value:.3f}" for name, value in history[-1].items())
            click.echo(shown, err=True)
    return model, history


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the model.")
@click.option("--seed", default=0, show_default=True, help="Seed of initialisation and episodes.")
@click.option("--steps", default=STEPS, show_default=True, help="Optimiser steps.")
def main(out: Path, seed: int, steps: int) -> None:
    """Train the pocket world's strong model from scratch and save it to a folder."""
    model, history = train(seed, steps)
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(str(out))
    language.save_tokenizer(out)
    record = {"seed": seed, "steps": steps, "history": history}
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
