"""Gradients added directly are the ones autograd would have made, over several micro-batches and with tied weights."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from likewise.engine.gradients import DirectEmbedding
from likewise.engine.logps import LogProbModel, collate


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_direct_gradients_are_those_of_autograd(tied, frozen, monkeypatch):
    from likewise.engine import logps

    monkeypatch.setattr(logps, "_CHUNK_BYTES", 4 * 61 * 20)  # several chunks
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=61, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=tied, pad_token_id=3,
    )  # fmt: skip
    plain = LlamaForCausalLM(config)
    if frozen:
        plain.get_input_embeddings().weight.requires_grad_(False)
    direct = LogProbModel(copy.deepcopy(plain))
    direct.add_gradients_directly()
    ordinary = LogProbModel(plain)
    generator = np.random.default_rng(0)
    for _ in range(3):
        rows = [(generator.integers(0, 61, 7), generator.integers(0, 61, 25)) for _ in range(2)]
        rows[0][0][2] = 3  # the padding token among the real ones, whose row nn.Embedding leaves alone
        for model in (ordinary, direct):
            (model(collate(rows, packed=True)) * torch.tensor([1.0, -0.5])).sum().backward()
    for (name, wanted), got in zip(ordinary.named_parameters(), direct.parameters()):
        assert (wanted.grad is None) == (got.grad is None), name
        if wanted.grad is not None:
            torch.testing.assert_close(got.grad, wanted.grad, atol=1e-5, rtol=1e-5)


def test_a_model_handed_back_has_its_own_embedding():
    model = LogProbModel(
        LlamaForCausalLM(
            LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
        )
    )
    model.add_gradients_directly()
    assert type(model.language_model.get_input_embeddings()) is DirectEmbedding
    assert type(model.hand_back().get_input_embeddings()) is torch.nn.Embedding
