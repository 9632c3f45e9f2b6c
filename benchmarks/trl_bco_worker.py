"""One BCO run with TRL's trainer, in TRL's own environment: read a job file, train, write a result file.

Called by bco_against_trl.py as `python trl_bco_worker.py job.json result.json`. Imports nothing of likewise.

TRL's trainer is left as it is. Three things are read or set around it:

- the loss of each step is taken from `compute_loss` as it passes (TRL logs means over ten steps otherwise);
- with `shift: zero` its running mean is replaced by a constant 0, which turns BCO into plain BCE, the one form in
  which both libraries have the same formula at every step;
- the rows arrive in the order in which they are to be used: its sampler is sequential.
"""

# ruff: noqa: E402 - the clock starts before the imports

from __future__ import annotations

import time

STARTED = time.perf_counter()

import hashlib
import json
import os
import sys
from pathlib import Path

import accelerate
import datasets
import torch
import transformers
import trl
from trl.experimental.bco import BCOConfig, BCOTrainer

IMPORTED = time.perf_counter()


class PinnedShift:
    """Stands where TRL keeps its running mean of rewards, and stays at 0."""

    mean = 0.0

    def update(self, rewards: torch.Tensor) -> None:
        del rewards


class Observed(BCOTrainer):
    """TRL's trainer, with the loss, the shift and the padded size of every micro-batch noted as they pass."""

    def __init__(self, *args, **kwargs):
        self.seen: list[dict] = []
        super().__init__(*args, **kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self.seen.append(
            {
                "loss": loss.item(),
                "shift": float(self.running.mean),
                "examples": len(inputs["label"]),
                "positions": inputs["completion_input_ids"].numel(),
                "at_s": time.perf_counter(),
            }
        )
        return loss


def peak_rss_bytes() -> int:
    """High-water mark of this process: VmHWM, which unlike ru_maxrss does not start at the parent's size."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


def settings_of(job: dict, output_dir: Path) -> BCOConfig:
    return BCOConfig(
        output_dir=str(output_dir),
        beta=job["beta"],
        max_length=job["max_tokens"],
        learning_rate=job["learning_rate"],
        lr_scheduler_type=job["schedule"],
        warmup_steps=0,
        weight_decay=job["weight_decay"],
        max_grad_norm=job["max_grad_norm"],
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        optim="adamw_torch_fused",
        num_train_epochs=1,
        per_device_train_batch_size=job["settings"]["micro_batch"],
        gradient_accumulation_steps=job["batch_size"] // job["settings"]["micro_batch"],
        gradient_checkpointing=job["settings"]["gradient_checkpointing"],
        precompute_ref_log_probs=job["settings"]["precompute"],
        bf16=False,
        use_cpu=True,
        seed=job["seed"],
        data_seed=job["seed"],
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )


def token_figures(dataset: datasets.Dataset, max_tokens: int) -> dict:
    """What TRL made of the rows: sizes, how many are still over the limit, and one hash per row to compare."""
    hashes, tokens, completion_tokens, over = {}, 0, 0, 0
    for row in dataset:
        ids, labels = row["completion_input_ids"], row["completion_labels"]
        start = next((i for i, label in enumerate(labels) if label != -100), len(labels))
        hashes[row["id"]] = hashlib.sha256(json.dumps([list(ids), start]).encode()).hexdigest()[:16]
        tokens += len(ids)
        completion_tokens += len(ids) - start
        over += len(ids) > max_tokens
    return {
        "rows": len(dataset),
        "tokens": tokens,
        "completion_tokens": completion_tokens,
        "rows_over_the_limit": over,
        "row_hashes": hashes,
    }


def step_losses(seen: list[dict], batch_size: int) -> list[float]:
    """Losses per optimizer step: means over the micro-batches of one step, as TRL itself accumulates them."""
    losses, group, held = [], [], 0
    for record in seen:
        group.append(record["loss"])
        held += record["examples"]
        if held >= batch_size:
            losses.append(sum(group) / len(group))
            group, held = [], 0
    if group:
        losses.append(sum(group) / len(group))
    return losses


def main(job_path: str, result_path: str) -> None:
    job = json.loads(Path(job_path).read_text())
    torch.set_num_threads(job["threads"])
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()

    load_started = time.perf_counter()
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["model"])
    # TRL puts the tokenizer's BOS in front of every prompt. The model family behind this tokenizer has none, and
    # likewise adds none; without this line TRL would train on one more token per row.
    tokenizer.bos_token = None
    model = transformers.AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    loaded = time.perf_counter()
    rss_loaded = peak_rss_bytes()

    rows = [json.loads(line) for line in Path(job["rows"]).read_text().splitlines()]
    dataset = datasets.Dataset.from_list(rows)
    output_dir = Path(job["output_dir"])
    trainer = Observed(
        model=model, args=settings_of(job, output_dir), train_dataset=dataset, processing_class=tokenizer
    )
    if job["shift"] == "zero":
        trainer.running = PinnedShift()
    prepared = time.perf_counter()
    trainer.train()
    trained = time.perf_counter()
    peak_trained = peak_rss_bytes()
    trainer.save_model(str(output_dir / "model"))
    saved = time.perf_counter()

    first = trainer.seen[0]["at_s"]
    result = {
        "library": "trl",
        "versions": {
            "trl": trl.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "accelerate": accelerate.__version__,
            "datasets": datasets.__version__,
        },
        "settings": {
            **job["settings"],
            "attention": model.config._attn_implementation,
            "optimizer": "adamw_torch_fused",
        },
        "threads": torch.get_num_threads(),
        "seconds": {
            "imports": IMPORTED - STARTED,
            "load": loaded - load_started,
            "prepare": prepared - loaded,
            "to_first_loss": first - prepared,
            "train": trained - prepared,
            "save": saved - trained,
            "job": saved - loaded,
            "job_and_load": saved - load_started,
        },
        "examples": sum(record["examples"] for record in trainer.seen),
        "steps": int(trainer.state.global_step),
        "computed_positions": sum(record["positions"] for record in trainer.seen),
        "peak_rss_bytes": peak_trained,
        "peak_rss_bytes_with_save": peak_rss_bytes(),
        "rss_after_load_bytes": rss_loaded,
        "processor_seconds": time.process_time(),
        "step_losses": step_losses(trainer.seen, job["batch_size"]),
        "shift": trainer.seen[-1]["shift"],
        "tokens": token_figures(trainer.train_dataset, job["max_tokens"]),
    }
    Path(result_path).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main(sys.argv[1], sys.argv[2])
