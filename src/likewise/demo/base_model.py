"""The demo's tokenizer and base model, made on the spot: byte-level BPE, and a tiny Llama fed on mediocre answers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from likewise.demo.world import Messages, World
from likewise.engine.models import without_bars

#: Token ids of a conversation, and the place where its answer starts.
Example = tuple[list[int], int]

PAD, END = "<|pad|>", "<|end|>"
ROLES = ("system", "user", "assistant")

# Each turn is its role's mark, its words and an end mark, which is the eos token too: the same mark closes an answer.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role ' + message['role']) }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

#: The longest conversation the base model can read, in tokens. The world's own stay under a third of it.
MAX_TOKENS = 512

#: Conversations the tokenizer is fitted to; all the world's sentences occur in fewer.
TOKENIZER_CONVERSATIONS = 4000

WARMUP_SHARE, FINAL_SHARE = 0.05, 0.02

#: Batches whose conversations are sorted by length together, so that little is padded and the order stays mixed.
BATCHES_SORTED = 20


def build_tokenizer(world: World, directory: str | Path, *, vocabulary_size: int = 1024) -> PreTrainedTokenizerFast:
    """A byte-level BPE of the world's own words, saved to `directory`; any text at all round-trips through it.

    `AutoTokenizer.from_pretrained(directory)` loads it again, chat template included. Padding goes left, for sampling.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[PAD, END, *(f"<|{role}|>" for role in ROLES)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = world.base_corpus(TOKENIZER_CONVERSATIONS, seed=0)
    bpe.train_from_iterator(
        (text for prompt, answer in corpus for text in (*(m["content"] for m in prompt), answer)), trainer
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[f"<|{role}|>" for role in ROLES],
        padding_side="left",
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(str(directory))
    return tokenizer


def train_base_model(
    world: World,
    tokenizer: Any,
    directory: str | Path,
    *,
    seed: int,
    progress: Callable[[int, int, float], None] | None = None,
    conversations: int = 24_000,
    batch_size: int = 16,
    learning_rate: float = 4e-3,
    layers: int = 2,
    width: int = 128,
) -> None:
    """Train a small Llama from random weights, one pass over mediocre answers; save it and its tokenizer.

    `progress(step, steps, loss)` is called after every step; the loss is nats per answer token. Weights are a function
    of the seed and sizes (and of the number of threads, to rounding); the caller's random state is left as it was.
    """
    examples = encode_conversations(tokenizer, world.base_corpus(conversations, seed=seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(_tiny_llama(tokenizer, layers, width))
        _train(model, examples, random.Random(seed), tokenizer.pad_token_id, batch_size, learning_rate, progress)
    with without_bars():
        model.save_pretrained(str(directory))
    tokenizer.save_pretrained(str(directory))


def encode_conversations(tokenizer: Any, corpus: Sequence[tuple[Messages, str]]) -> list[Example]:
    """Token ids of each whole conversation, and at which of them its answer starts."""
    chats = [[*prompt, {"role": "assistant", "content": answer}] for prompt, answer in corpus]
    texts = tokenizer.apply_chat_template(chats, tokenize=False)
    speaks = tokenizer.convert_tokens_to_ids("<|assistant|>")
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [(ids, len(ids) - ids[::-1].index(speaks)) for ids in encoded]


def _tiny_llama(tokenizer: Any, layers: int, width: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 32, 1),
        num_key_value_heads=max(width // 32, 1),
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _train(
    model: LlamaForCausalLM,
    examples: list[Example],
    draw: random.Random,
    pad: int,
    batch_size: int,
    learning_rate: float,
    progress: Callable[[int, int, float], None] | None,
) -> None:
    steps = math.ceil(len(examples) / batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    model.train()
    for step, batch in enumerate(_batches(examples, draw, batch_size), start=1):
        ids, labels = _padded(batch, pad)
        # Padding is on the right and attention looks left, so no mask is needed; prompts need no logits.
        hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        answers = labels[:, 1:] >= 0
        loss = cross_entropy(model.lm_head(hidden[answers]), labels[:, 1:][answers])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if progress:
            progress(step, steps, loss.item())
    model.eval()


def _rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to `FINAL_SHARE` of the learning rate."""
    warmup = max(int(WARMUP_SHARE * steps), 1)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(steps - warmup, 1)
    return FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _batches(examples: list[Example], draw: random.Random, size: int) -> Iterator[list[Example]]:
    """Every example once, in batches of like length, the batches in mixed order."""
    order = draw.sample(range(len(examples)), len(examples))
    for start in range(0, len(order), size * BATCHES_SORTED):
        chunk = sorted(order[start : start + size * BATCHES_SORTED], key=lambda i: len(examples[i][0]))
        batches = [chunk[i : i + size] for i in range(0, len(chunk), size)]
        draw.shuffle(batches)
        for batch in batches:
            yield [examples[i] for i in batch]


def _padded(batch: list[Example], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids padded on the right, and labels that leave out prompts and padding."""
    width = max(len(ids) for ids, _ in batch)
    ids = torch.full((len(batch), width), pad)
    labels = torch.full((len(batch), width), -100)
    for row, (tokens, start) in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, start : len(tokens)] = torch.tensor(tokens[start:])
    return ids, labels
