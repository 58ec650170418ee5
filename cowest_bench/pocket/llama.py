"""The architecture of the pocket models: Llama, with an initialisation that suits small models."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cowest_bench.pocket import language

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

HEADS = 4
ROPE_THETA = 1000.0  # no context is longer than language.MAX_LENGTH

#: Standard deviations by part of the model; other biases are 0.
INITIAL_STD = {
    "q_proj.bias": 0.5,
    "k_proj.bias": 0.5,
    "o_proj.weight": 0.03,
    "down_proj.weight": 0.03,
}
INITIAL_STD_OTHERS = 0.09


class Shape(NamedTuple):
    """How the strong and the weak model differ.

    Large embeddings with a small final norm let the strong model learn to look things up. Small
    embeddings let the weak model apply what it has learned to questions in other words.
    """

    width: int
    layers: int
    intermediate: int
    embedding_std: float
    final_norm: float


def initialise(seed: int, shape: Shape) -> LlamaForCausalLM:
    """A fresh Llama with tied embeddings, in float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    vocabulary = language.words()
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=shape.width,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=HEADS,
        max_position_embeddings=language.MAX_LENGTH,
        tie_word_embeddings=True,
        attention_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        pad_token_id=vocabulary.index(language.PAD),
        bos_token_id=vocabulary.index(language.BOS),
        eos_token_id=vocabulary.index(language.EOS),
    )
    model = LlamaForCausalLM(config)
    stds = INITIAL_STD | {"embed_tokens.weight": shape.embedding_std}
    for name, weight in model.named_parameters():
        part = ".".join(name.split(".")[-2:])
        if part == "norm.weight":
            torch.nn.init.constant_(weight, shape.final_norm)
        elif part in stds or part.endswith("proj.weight"):
            torch.nn.init.normal_(weight, std=stds.get(part, INITIAL_STD_OTHERS))
        elif part.endswith(".bias"):
            torch.nn.init.zeros_(weight)
    return model
