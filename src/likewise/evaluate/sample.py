"""Answers sampled from a model, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from likewise.data.tokens import Renderer
from likewise.errors import BadConfig
from likewise.schema import Content


def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Content],
    *,
    max_new_tokens: int = 256,
    temperature: float = 1.0,
    top_p: float = 1.0,
    batch_size: int = 32,
    seed: int = 0,
    max_prompt_tokens: int = 1536,
    as_chat: bool = False,
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """One answer per prompt, as text without special tokens, in the order of the prompts.

    Prompts are rendered and trimmed exactly as in training. `temperature` 0 takes the likeliest token; `top_p` keeps
    the smallest set of tokens that holds that much probability. Batches hold prompts of similar length, padded on the
    left. The same seed, prompts and batch size give the same answers.
    Raises: BadConfig for a temperature, top_p or count out of range.
    """
    if temperature < 0 or not 0 < top_p <= 1 or max_new_tokens < 1 or batch_size < 1:
        raise BadConfig(
            f"temperature {temperature} must be 0 or more, top_p {top_p} above 0 and at most 1, max_new_tokens "
            f"{max_new_tokens} and batch_size {batch_size} at least 1"
        )
    limit = max_prompt_tokens + max_new_tokens
    renderer = Renderer(
        tokenizer, max_tokens=max(32, limit), max_prompt_tokens=min(max_prompt_tokens, limit - 1), as_chat=as_chat
    )
    ids = renderer.prompts(prompts)
    order = sorted(range(len(ids)), key=lambda i: (-len(ids[i]), i))
    answers = [""] * len(ids)
    was_training = model.training
    model.eval()
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            for place, answer in zip(
                places, _generate(model, tokenizer, [ids[i] for i in places], max_new_tokens, temperature, top_p)
            ):
                answers[place] = answer
            if progress is not None:
                progress(len(places))
    finally:
        torch.set_rng_state(state)
        model.train(was_training)
    return answers


def _generate(
    model: Any, tokenizer: Any, ids: list[list[int]], max_new_tokens: int, temperature: float, top_p: float
) -> list[str]:
    from transformers import GenerationConfig

    width = max(len(i) for i in ids)
    pad = tokenizer.pad_token_id
    device = next(model.parameters()).device
    input_ids = torch.tensor([[pad] * (width - len(i)) + i for i in ids], device=device)
    mask = torch.tensor([[0] * (width - len(i)) + [1] * len(i) for i in ids], device=device)
    choice: dict[str, Any] = (
        {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
        if temperature > 0
        else {"do_sample": False}
    )
    ends = _end_tokens(model, tokenizer)
    config = GenerationConfig(max_new_tokens=max_new_tokens, pad_token_id=pad, eos_token_id=ends, **choice)
    with torch.no_grad(), _settings_of_its_own_off(model) as plain:
        output = plain.generate(input_ids=input_ids, attention_mask=mask, generation_config=config)
    return [_text(tokenizer, row[width:].tolist(), set(ends)) for row in output]


@contextmanager
def _settings_of_its_own_off(model: Any) -> Iterator[Any]:
    """The model without its own generation settings, which transformers fills in where a caller gives none.

    Hub models come with a repetition penalty, a top_k and more: sampled with them it is not the model that was trained.
    """
    from transformers import GenerationConfig

    plain = model.get_base_model() if hasattr(model, "get_base_model") else model  # adapters stay active in it
    own = plain.generation_config
    plain.generation_config = GenerationConfig()
    try:
        yield plain
    finally:
        plain.generation_config = own


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends an answer: chat models often have one for the turn beside the tokenizer's own."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}
    return sorted(e for e in ends if e is not None)


def _text(tokenizer: Any, tokens: list[int], ends: set[int]) -> str:
    for place, token in enumerate(tokens):
        if token in ends:
            tokens = tokens[:place]
            break
    return str(tokenizer.decode(tokens, skip_special_tokens=True))
