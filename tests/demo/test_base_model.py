"""The demo's tokenizer and base model, at a size that trains in seconds."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from likewise.demo.base_model import build_tokenizer, encode_conversations, train_base_model
from likewise.demo.world import build_world

WORLD = build_world(0)
TINY = {"conversations": 960, "batch_size": 16, "layers": 1, "width": 64}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(WORLD, folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def trained(tokenizer, tmp_path_factory):
    folder, losses = tmp_path_factory.mktemp("base"), []
    train_base_model(
        WORLD, tokenizer, folder, seed=0, progress=lambda step, steps, loss: losses.append((step, steps, loss)), **TINY
    )
    return folder, losses


def test_the_saved_tokenizer_loads_with_its_template_and_special_tokens(tokenizer):
    assert 500 < len(tokenizer) <= 1024
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|end|>", "<|pad|>")
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    text = tokenizer.apply_chat_template(
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi."}],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert text == "<|system|>Be kind.<|end|><|user|>Hi.<|end|><|assistant|>"


@given(text=st.text(max_size=60))
def test_any_text_round_trips(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_the_prompt_with_its_answer_mark_begins_the_whole_conversation(tokenizer):
    for prompt, answer in WORLD.base_corpus(300, seed=9):
        whole = [*prompt, {"role": "assistant", "content": answer}]
        start_ids, whole_ids = (
            tokenizer.apply_chat_template(chat, add_generation_prompt=more, return_dict=False)
            for chat, more in ((prompt, True), (whole, False))
        )
        assert whole_ids[: len(start_ids)] == start_ids
        assert whole_ids[-1] == tokenizer.eos_token_id
        assert len(whole_ids) < 170


def test_an_unknown_role_is_refused_by_the_template(tokenizer):
    with pytest.raises(Exception, match="unknown role judge"):
        tokenizer.apply_chat_template([{"role": "judge", "content": "Hm."}], tokenize=False)


def test_the_answer_starts_where_the_encoding_says(tokenizer):
    corpus = WORLD.base_corpus(100, seed=2)
    for (_, answer), (ids, start) in zip(corpus, encode_conversations(tokenizer, corpus), strict=True):
        assert tokenizer.decode(ids[start:]) == answer + "<|end|>"
        assert tokenizer.decode(ids[:start]).endswith("<|end|><|assistant|>")


def test_the_loss_falls_from_that_of_a_blind_guess(trained, tokenizer):
    _, losses = trained
    assert [step for step, _, _ in losses] == list(range(1, 61))
    assert {steps for _, steps, _ in losses} == {60}
    assert losses[0][2] == pytest.approx(math.log(len(tokenizer)), abs=0.3)
    assert sum(loss for _, _, loss in losses[-10:]) / 10 < 3.5


def test_the_saved_model_loads_with_its_tokenizer(trained, tokenizer):
    folder, _ = trained
    assert (folder / "model.safetensors").exists()
    model = AutoModelForCausalLM.from_pretrained(folder)
    again = AutoTokenizer.from_pretrained(folder)
    assert model.config.vocab_size == len(again) == len(tokenizer)
    assert model.config.eos_token_id == again.eos_token_id
    assert again.chat_template == tokenizer.chat_template


def test_weights_are_a_function_of_the_seed_and_leave_the_callers_randomness_alone(tokenizer, trained, tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    for name, seed in (("same", 0), ("other", 1)):
        train_base_model(WORLD, tokenizer, tmp_path / name, seed=seed, **TINY)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    first, same, other = (
        AutoModelForCausalLM.from_pretrained(folder).state_dict()
        for folder in (trained[0], tmp_path / "same", tmp_path / "other")
    )
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_training_warns_of_nothing(tokenizer, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_base_model(WORLD, tokenizer, tmp_path, seed=0, conversations=32, layers=1, width=32)
