"""One epoch on real human feedback: BCO on thumbs, DPO on pairs, held-out agreement with interval.

    python experiments/first_runs.py DATA WORK [--minutes 8]

DATA is the folder of real data (hh_harmless, alpaca_eval_ratings, text, tokenizers); WORK receives base model and
both runs. The base model is a small Llama-style model trained for `--minutes` on text of DATA: rated answers to
instructions, Shakespeare, and the conversations of hh_harmless *without* the answers that were voted on.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import time
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import likewise

BLOCK, BATCH = 256, 8


def documents(data: Path, tokenizer) -> list[str]:
    """Text to learn language from; no completion that carries a thumb or stands in a pair is among it."""
    found = [(data / "text" / "tiny_shakespeare.txt").read_text()[i : i + 2000] for i in range(0, 1_000_000, 2000)]
    with gzip.open(data / "alpaca_eval_ratings" / "train.jsonl.gz", "rt") as file:
        for line in file:
            row = json.loads(line)
            prompt = row["prompt"] if isinstance(row["prompt"], list) else [{"role": "user", "content": row["prompt"]}]
            for answer in row["completions"]:
                turns = [*prompt, {"role": "assistant", "content": answer["text"]}]
                found.append(tokenizer.apply_chat_template(turns, tokenize=False))
    with open(data / "hh_harmless" / "train.jsonl") as file:
        found += [tokenizer.apply_chat_template(json.loads(line)["prompt"], tokenize=False) for line in file]
    return found


def train_base(data: Path, folder: Path, minutes: float, seed: int = 0) -> dict[str, float]:
    """Train the base model until the time is up; the learning rate follows the clock."""
    tokenizer = AutoTokenizer.from_pretrained(data / "tokenizers" / "pythia")
    texts = documents(data, tokenizer)
    random.Random(seed).shuffle(texts)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=50304, hidden_size=256, intermediate_size=704, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    begun, steps, tokens, recent, buffer = time.perf_counter(), 0, 0, [], []
    stream = iter(texts * 50)
    while (done := (time.perf_counter() - begun) / (60 * minutes)) < 1:
        while len(buffer) < BLOCK * BATCH:
            buffer += [*tokenizer(next(stream))["input_ids"], tokenizer.eos_token_id]
        ids = torch.tensor(buffer[: BLOCK * BATCH]).view(BATCH, BLOCK)
        buffer = buffer[BLOCK * BATCH :]
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (steps + 1) / 30) * 0.5 * (1 + math.cos(math.pi * done))
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps, tokens = steps + 1, tokens + ids.numel()
        recent = [*recent[-20:], loss.item()]
        if steps % 20 == 0:
            print(f"base model: step {steps}, {tokens:,} tokens, loss {sum(recent) / len(recent):.3f}", flush=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"steps": steps, "tokens": tokens, "loss": sum(recent) / len(recent)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    asked = parser.parse_args()
    base = asked.work / "base"
    facts = {}
    if not (base / "model.safetensors").exists():
        facts["base"] = train_base(asked.data, base, asked.minutes)
    for objective, name in (("bco", "feedback.jsonl"), ("dpo", "train.jsonl")):
        result = likewise.align(
            str(base), asked.data / "hh_harmless" / name, objective, output_dir=asked.work / objective,
            learning_rate=asked.learning_rate, batch_size=32, holdout=0.15, skip_bad_rows=True, report_samples=4,
        )  # fmt: skip
        fifths = [result.metrics[i * len(result.metrics) // 5] for i in range(5)] + [result.metrics[-1]]
        facts[objective] = {
            "held out": str(result.heldout),
            "loss": [round(m["loss"], 4) for m in fifths],
            "margin": [round(m.get("reward/margin", 0.0), 4) for m in fifths],
            "findings": [f.text for f in result.summary.findings],
        }
    print(json.dumps(facts, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
