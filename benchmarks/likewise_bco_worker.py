"""One BCO run with likewise: read a job file, train through the public `likewise.align`, write a result file.

Called by bco_against_trl.py as `python likewise_bco_worker.py job.json result.json`. Whatever a user's run does is in
the measured time: reading and checking rows, tokenizing, the reference pass, metrics, report and saving. Only two
things are set for the comparison: classes are not weighted (TRL does not), and the rows are taken in the order of the
file (TRL's sampler is sequential).
"""

# ruff: noqa: E402 - the clock starts before the imports

from __future__ import annotations

import time

STARTED = time.perf_counter()

import hashlib
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers

import likewise
from likewise.data import read_feedback
from likewise.data.tokens import tokenize_feedback

align = likewise.align  # the attribute is lazy: its imports belong to the imports

IMPORTED = time.perf_counter()


def peak_rss_bytes() -> int:
    """High-water mark of this process: VmHWM, which unlike ru_maxrss does not start at the parent's size."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


def settings_of(job: dict[str, Any]) -> dict[str, Any]:
    return {
        "output_dir": job["output_dir"],
        "objective": "bco" if job["shift"] == "running" else "bce",  # bce is bco with its shift at 0
        "beta": job["beta"],
        "epochs": 1,
        "batch_size": job["batch_size"],
        "learning_rate": job["learning_rate"],
        "schedule": job["schedule"],
        "warmup": 0.0,
        "weight_decay": job["weight_decay"],
        "max_grad_norm": job["max_grad_norm"],
        "max_tokens": job["max_tokens"],
        "max_prompt_tokens": job["max_prompt_tokens"],
        "class_balance": "none",
        "shuffle": False,
        "dtype": "float32",
        "seed": job["seed"],
        "checkpoint_every": 0,
        "report_samples": 0,
        "cache_dir": str(Path(job["output_dir"]).with_name("reference-cache")),  # empty: the pass is in the figure
        **job["settings"],
    }


def token_figures(job: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """What likewise made of the rows: sizes, how many were trimmed, and one hash per row to compare."""
    feedback = read_feedback(job["rows"])
    tokens = tokenize_feedback(
        feedback, tokenizer, max_tokens=job["max_tokens"], max_prompt_tokens=job["max_prompt_tokens"]
    )
    hashes = {}
    for example, row in enumerate(tokens.row):
        prompt = tokens.prompts[int(tokens.prompt_of[example])].tolist()
        ids = prompt + tokens.completions[example].tolist()
        hashes[feedback.rows[row].id] = hashlib.sha256(json.dumps([ids, len(prompt)]).encode()).hexdigest()[:16]
    return {
        "rows": len(tokens),
        "tokens": int(tokens.prompt_lengths.sum() + tokens.completion_lengths.sum()),
        "completion_tokens": int(tokens.completion_lengths.sum()),
        "rows_over_the_limit": len(tokens.trimmed_prompts) + len(tokens.skipped),
        "row_hashes": hashes,
    }


def main(job_path: str, result_path: str) -> None:
    job = json.loads(Path(job_path).read_text())
    torch.set_num_threads(job["threads"])

    load_started = time.perf_counter()
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["model"])
    model = transformers.AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    loaded = time.perf_counter()
    rss_loaded = peak_rss_bytes()

    settings = settings_of(job)
    done = align(model, job["rows"], tokenizer=tokenizer, **settings)
    finished = time.perf_counter()
    peak = peak_rss_bytes()

    training = sum(step["seconds"] for step in done.metrics)
    result = {
        "library": "likewise",
        "versions": {name: version(name) for name in ("likewise", "torch", "transformers", "accelerate")},
        "settings": job["settings"],
        "threads": torch.get_num_threads(),
        "seconds": {
            "imports": IMPORTED - STARTED,
            "load": loaded - load_started,
            "train": training,
            "outside_steps": finished - loaded - training,  # rows, reference pass, saving, report
            "job": finished - loaded,
            "job_and_load": finished - load_started,
        },
        "examples": sum(step["examples"] for step in done.metrics),
        "steps": len(done.metrics),
        "computed_positions": sum(step["tokens"] for step in done.metrics),
        "peak_rss_bytes": peak,
        "rss_after_load_bytes": rss_loaded,
        "processor_seconds": time.process_time(),
        "step_losses": [step["loss"] for step in done.metrics],
        "shift": done.metrics[-1].get("objective/shift"),
        "tokens": token_figures(job, tokenizer),
    }
    Path(result_path).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main(sys.argv[1], sys.argv[2])
