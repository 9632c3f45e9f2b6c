"""What every test may use: the real data beside the project, and a tiny model with a tokenizer of its own."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

CHAT_TEMPLATE = (
    "{%- for m in messages -%}<|{{ m['role'] }}|>{{ m['content'] }}{% if m['role'] == 'assistant' %}<|end|>{% endif %}"
    "\n{%- endfor -%}{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real feedback; tests that ask for it skip where the project stands alone."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache of reference log-probs."""
    monkeypatch.setenv("LIKEWISE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """Byte-level, 256 bytes and a few special tokens; a chat template; no BOS."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>", pad_token="<|pad|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>", "<|system|>"]})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@pytest.fixture(scope="session")
def tiny_model(tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama-style model of two layers, and the tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny-model")
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        eos_token_id=tiny_tokenizer.eos_token_id,
        pad_token_id=tiny_tokenizer.pad_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def words(generator: random.Random, low: int, high: int) -> str:
    return " ".join(
        "".join(generator.choices("abcdefgh", k=generator.randint(1, 6))) for _ in range(generator.randint(low, high))
    )


@pytest.fixture
def thumbs() -> Callable[..., list[dict[str, Any]]]:
    """Rows of thumbs: liked answers begin with "yes", disliked with "no", so there is something to learn."""

    def make(n: int, *, seed: int = 0, up: float = 0.5, chat: bool = True) -> list[dict[str, Any]]:
        generator = random.Random(seed)
        rows = []
        for i in range(n):
            label = generator.random() < up
            prompt = f"{i} {words(generator, 1, 6)}"
            rows.append(
                {
                    "prompt": [{"role": "user", "content": prompt}] if chat else prompt + ": ",
                    "completion": ("yes " if label else "no ") + words(generator, 1, 8),
                    "label": label,
                    "id": f"row-{i}",
                }
            )
        return rows

    return make


@pytest.fixture
def pairs() -> Callable[..., list[dict[str, Any]]]:
    """Rows of pairs over the same kind of text."""

    def make(n: int, *, seed: int = 0) -> list[dict[str, Any]]:
        generator = random.Random(seed)
        return [
            {
                "prompt": [{"role": "user", "content": f"{i} {words(generator, 1, 6)}"}],
                "chosen": "yes " + words(generator, 1, 8),
                "rejected": "no " + words(generator, 1, 8),
            }
            for i in range(n)
        ]

    return make


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[..., Path]:
    def write(rows: list[dict[str, Any]], name: str = "feedback.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write
