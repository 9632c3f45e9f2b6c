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
        "objective": "bco" if job["shift"] == "running" else "bce",
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
