"""Sampling: the same seed gives the same answers, and neither batching nor padding changes a greedy one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from likewise.errors import BadConfig
from likewise.evaluate import sample


@pytest.fixture(scope="module")
def model(tiny_model):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


PROMPTS = ["a: ", "a much longer prompt that fills the row: ", "mid length: ", "b: ", "x" * 40 + ": "]


def _greedy(model, tokenizer, prompt: str, steps: int) -> str:
    """Token by token, without cache, batch or padding."""
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer: list[int] = []
    for _ in range(steps):
        with torch.no_grad():
            token = int(model(input_ids=torch.tensor([[*ids, *answer]])).logits[0, -1].argmax())
        if token == tokenizer.eos_token_id:
            break
        answer.append(token)
    return tokenizer.decode(answer, skip_special_tokens=True)


def test_temperature_zero_is_greedy_whatever_the_batch(model, tiny_tokenizer):
    wanted = [_greedy(model, tiny_tokenizer, p, 12) for p in PROMPTS]
    assert len(set(wanted)) > 1
    for batch_size in (1, 2, 32):
        got = sample(model, tiny_tokenizer, PROMPTS, max_new_tokens=12, temperature=0, batch_size=batch_size)
        assert got == wanted


def test_answers_stand_in_the_order_of_the_prompts(model, tiny_tokenizer):
    one_by_one = [sample(model, tiny_tokenizer, [p], max_new_tokens=8, temperature=0)[0] for p in PROMPTS]
    assert sample(model, tiny_tokenizer, PROMPTS[::-1], max_new_tokens=8, temperature=0) == one_by_one[::-1]
    assert sample(model, tiny_tokenizer, [], max_new_tokens=8) == []


def test_the_seed_decides_and_the_caller_s_random_state_is_left_alone(model, tiny_tokenizer):
    options = {"max_new_tokens": 12, "temperature": 1.0}
    torch.manual_seed(5)
    first = sample(model, tiny_tokenizer, PROMPTS, seed=1, **options)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.rand(1) == after
    assert sample(model, tiny_tokenizer, PROMPTS, seed=1, **options) == first
    assert sample(model, tiny_tokenizer, PROMPTS, seed=2, **options) != first
    # Equal prompts do not get equal answers.
    assert len(set(sample(model, tiny_tokenizer, ["a: "] * 8, seed=1, **options))) > 4


def test_the_model_s_own_settings_for_generation_are_not_mixed_in(tiny_model, tiny_tokenizer):
    """Hub models come with a repetition penalty, a top_k and more: the policy is sampled as it was trained."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    plain = sample(model, tiny_tokenizer, PROMPTS, max_new_tokens=12, temperature=0)
    drawn = sample(model, tiny_tokenizer, PROMPTS, max_new_tokens=12, seed=3)
    own = model.generation_config
    own.repetition_penalty, own.no_repeat_ngram_size, own.top_k, own.min_new_tokens = 5.0, 1, 1, 12
    own.temperature, own.top_p, own.suppress_tokens = 0.1, 0.1, list(range(100))
    assert sample(model, tiny_tokenizer, PROMPTS, max_new_tokens=12, temperature=0) == plain
    assert sample(model, tiny_tokenizer, PROMPTS, max_new_tokens=12, seed=3) == drawn
    assert model.generation_config is own
    assert (own.repetition_penalty, own.top_k) == (5.0, 1)


def test_an_adapter_is_active_while_sampling(tiny_model, tiny_tokenizer, align, thumbs):
    run = align(thumbs(40), lora_rank=4, learning_rate=5e-2, epochs=2)
    merged = run.result.model.merge_and_unload()
    answers = sample(merged, tiny_tokenizer, PROMPTS, max_new_tokens=12, temperature=0)
    from peft import AutoPeftModelForCausalLM

    adapted = AutoPeftModelForCausalLM.from_pretrained(run.folder)
    assert sample(adapted, tiny_tokenizer, PROMPTS, max_new_tokens=12, temperature=0) == answers
    with adapted.disable_adapter():
        assert sample(adapted, tiny_tokenizer, PROMPTS, max_new_tokens=12, temperature=0) != answers


class _Fixed(torch.nn.Module):
    """Puts fixed logits in the place of a model's own."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(*hidden.shape[:-1], -1)


def _fixed(tiny_model, tiny_tokenizer, shares: dict[str, float]):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    logits = torch.full((len(tiny_tokenizer),), -1e9)
    for text, share in shares.items():
        (token,) = tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
        logits[token] = np.log(share)
    model.lm_head = _Fixed(logits)
    return model


def test_temperature_and_top_p_give_the_shares_they_should(tiny_model, tiny_tokenizer):
    model = _fixed(tiny_model, tiny_tokenizer, {"a": 0.5, "b": 0.3, "c": 0.2})
    draw = {"max_new_tokens": 40, "batch_size": 100}

    def shares(**options) -> list[float]:
        text = "".join(sample(model, tiny_tokenizer, ["q: "] * 100, **draw, **options))
        return [text.count(letter) / 4000 for letter in "abc"]

    # 4000 draws: a standard error of 0.008 at most.
    assert shares() == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    squares = np.array([0.25, 0.09, 0.04]) / 0.38
    assert shares(temperature=0.5) == pytest.approx(squares.tolist(), abs=0.03)
    assert shares(top_p=0.7) == pytest.approx([0.625, 0.375, 0.0], abs=0.03)  # a and b hold 0.8, a alone 0.5
    assert shares(top_p=0.45) == [1.0, 0.0, 0.0]


def test_answers_stop_at_every_end_token_and_do_not_show_it(tiny_model, tiny_tokenizer):
    model = _fixed(tiny_model, tiny_tokenizer, {"a": 0.7, "<|end|>": 0.3})
    answers = sample(model, tiny_tokenizer, ["q: "] * 60, max_new_tokens=50)
    assert set("".join(answers)) == {"a"}
    # Length of a geometric distribution: mean 0.7/0.3, standard error 0.36.
    assert np.mean([len(a) for a in answers]) == pytest.approx(7 / 3, abs=1.2)
    # A second end token, as chat models have for the turn.
    model = _fixed(tiny_model, tiny_tokenizer, {"a": 0.7, "<|user|>": 0.3})
    model.generation_config.eos_token_id = [
        tiny_tokenizer.eos_token_id,
        tiny_tokenizer.convert_tokens_to_ids("<|user|>"),
    ]
    answers = sample(model, tiny_tokenizer, ["q: "] * 60, max_new_tokens=50)
    assert np.mean([len(a) for a in answers]) == pytest.approx(7 / 3, abs=1.2)


def test_a_chat_prompt_is_rendered_as_in_training(model, tiny_tokenizer):
    chat = [{"role": "user", "content": "hi"}]
    wanted = _greedy(model, tiny_tokenizer, "<|user|>hi<|assistant|>", 10)
    options = {"max_new_tokens": 10, "temperature": 0}
    assert sample(model, tiny_tokenizer, [chat], **options) == [wanted]
    assert sample(model, tiny_tokenizer, ["hi"], as_chat=True, **options) == [wanted]


def test_a_long_prompt_is_trimmed_as_in_training(model, tiny_tokenizer):
    long, short = "y" * 100 + "x" * 20, "x" * 20
    got = sample(model, tiny_tokenizer, [long], max_new_tokens=10, temperature=0, max_prompt_tokens=20)
    assert got == [_greedy(model, tiny_tokenizer, short, 10)]


@pytest.mark.parametrize(
    "options", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.5}, {"max_new_tokens": 0}, {"batch_size": 0}]
)
def test_settings_out_of_range_are_refused(model, tiny_tokenizer, options):
    with pytest.raises(BadConfig):
        sample(model, tiny_tokenizer, ["a"], **options)
