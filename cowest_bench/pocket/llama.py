"""The architecture of both pocket models: Llama, with an initialisation that small models need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cowest_bench.pocket import language

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

#: Standard deviations by part. Large embeddings, queries and keys and small output layers let lookup
#: be learnt within some hundred steps; with the library's default (0.02) it is not learnt at all.
INITIAL_STD = {
    "embed_tokens.weight": 1.0,
    "q_proj.bias": 0.5,
    "k_proj.bias": 0.5,
    "o_proj.weight": 0.03,
    "down_proj.weight": 0.03,
}
INITIAL_STD_OTHERS = 0.09
FINAL_NORM = 0.1


def initialise(seed: int, *, width: int, layers: int, intermediate: int) -> LlamaForCausalLM:
    """A fresh Llama with four heads and tied embeddings, in float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(language.words()),
        hidden_size=width,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=language.MAX_LENGTH,
        tie_word_embeddings=True,
        attention_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        pad_token_id=language.words().index(language.PAD),
        bos_token_id=language.words().index(language.BOS),
        eos_token_id=language.words().index(language.EOS),
    )
    model = LlamaForCausalLM(config)
    for name, weight in model.named_parameters():
        part = ".".join(name.split(".")[-2:])
        if part == "norm.weight":
            torch.nn.init.constant_(weight, FINAL_NORM)
        elif part in INITIAL_STD:
            torch.nn.init.normal_(weight, std=INITIAL_STD[part])
        elif part.endswith(".bias"):
            torch.nn.init.zeros_(weight)
        elif part.endswith("proj.weight"):
            torch.nn.init.normal_(weight, std=INITIAL_STD_OTHERS)
    return model
