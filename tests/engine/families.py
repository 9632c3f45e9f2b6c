"""Tiny random models of many families, each with what makes the family special switched on."""

from __future__ import annotations

from typing import Any

import numpy as np

VOCABULARY = 97
_BASE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
_SPECIAL = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
_GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _BASE),
    "llama-tied": ("LlamaConfig", {**_BASE, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2Config", _BASE),
    "qwen3": ("Qwen3Config", {**_BASE, "head_dim": 8}),
    "mistral-window": ("MistralConfig", {**_BASE, "sliding_window": 7}),
    "gemma2": (
        "Gemma2Config",
        {
            **_BASE,
            "head_dim": 8,
            "sliding_window": 7,
            "final_logit_softcapping": 1.5,
            "attn_logit_softcapping": 0.5,
            "query_pre_attn_scalar": 1,
        },
    ),
    "gemma3": ("Gemma3TextConfig", {**_BASE, "head_dim": 8, "sliding_window": 7}),
    "gpt-neox": ("GPTNeoXConfig", {k: v for k, v in _BASE.items() if k != "num_key_value_heads"}),
    "phi-head-bias": ("PhiConfig", _BASE),
    "phi3": ("Phi3Config", {**_BASE, **_SPECIAL}),
    "cohere-logit-scale": ("CohereConfig", {**_BASE, "logit_scale": 0.25}),
    "granite-logits-scaling": ("GraniteConfig", {**_BASE, "logits_scaling": 3.0}),
    "gpt2": ("GPT2Config", {**_GPT2, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}),
}
PADDED_ONLY: dict[str, tuple[str, dict[str, Any]]] = {
    "mamba": ("MambaConfig", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}),
    "bloom": ("BloomConfig", {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
}


def make(name: str) -> Any:
    """A model in float32, with weights large enough that every part of it matters."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM

    config, options = (FAMILIES | PADDED_ONLY)[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(getattr(transformers, config)(**options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.ndim > 1 else 1).add_(0.05 * torch.randn_like(parameter))
    return model


def sequences(sizes: tuple[tuple[int, int], ...] = ((14, 6), (1, 5), (8, 1), (3, 9))) -> list[Any]:
    """(prompt ids, completion ids); the first and last are longer than the windows above."""
    generator = np.random.default_rng(5)
    return [(generator.integers(1, VOCABULARY, p), generator.integers(1, VOCABULARY, c)) for p, c in sizes]


def oracle(model: Any, rows: list[Any], weights: Any = None) -> tuple[Any, dict[str, Any]]:
    """Log-probs one sequence at a time from the model's own logits in float64, and the gradient of their weighted sum.

    Plain transformers and torch: nothing of likewise is used.
    """
    import copy

    import torch

    exact = copy.deepcopy(model).double()
    exact.config._attn_implementation = "eager"
    values = []
    for prompt, completion in rows:
        ids = torch.tensor([[*prompt, *completion]])
        logits = exact(input_ids=ids, use_cache=False).logits.double()[0]
        every = torch.log_softmax(logits[:-1], -1).gather(1, ids[0, 1:, None])[:, 0]
        values.append(every[len(prompt) - 1 :].sum())
    logps = torch.stack(values)
    if weights is not None:
        (logps * weights).sum().backward()
    grads = {n: p.grad for n, p in exact.named_parameters() if p.grad is not None}
    return logps.detach(), grads
