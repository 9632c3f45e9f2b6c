"""Records of a made-up run: real objectives on log-ratios that drift apart as a model's do."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from likewise.engine.config import AlignConfig, make_config
from likewise.engine.heldout import HeldOut
from likewise.engine.progress import Setting
from likewise.engine.summary import Summary, summarise
from likewise.engine.trainer import rewards
from likewise.estimates import Estimate
from likewise.objectives import OBJECTIVES, LabelLogps, PairLogps
from likewise.report.run_page import SamplePair, Verdict

HELDOUT = HeldOut("AUC", Estimate(0.712, 0.661, 0.758, 368), 368, "log-ratio of 368 held-out thumbs")

VERDICT = Verdict(
    "People would like the aligned model more: it wins 78.3 % (95 % interval 75.1 to 81.2) of 600 comparisons by the "
    "hidden true preference.",
    [
        ("True reward, base", "−0.41 (−0.52 to −0.30)"),
        ("True reward, aligned", "+0.87 (+0.78 to +0.96)"),
        ("Wins, ties, losses", "458, 23, 119"),
    ],
    True,
)

SAMPLES = [
    SamplePair(
        [
            {"role": "system", "content": "You are a helpful guide to the town of Ebbing."},
            {"role": "user", "content": "Hello! Is there a good bakery here?"},
            {"role": "assistant", "content": "There is one by the harbour, and one behind the church."},
            {"role": "user", "content": "Which one opens first?"},
            {"role": "assistant", "content": "The one by the harbour, at six."},
            {"role": "user", "content": "And on Sundays?"},
        ],
        "Sunday sunday the the bakery opens opens at the harbour is the bakery and the bakery.",
        "On Sundays the harbour bakery opens at seven. The one behind the church stays closed.",
        -0.62,
        1.34,
    ),
    SamplePair(
        "\n\nHuman: How do I get red wine out of a shirt?\n\nAssistant:",
        " You cannot. Buy a new one.",
        " Blot it, do not rub. Cover the stain with salt for ten minutes, rinse with cold water, then wash as usual.",
        0.21,
        0.98,
    ),
    SamplePair([{"role": "user", "content": "Say nothing."}], "", "", 0.0, 0.0),
    SamplePair([{"role": "user", "content": "ما هي عاصمة فرنسا؟"}], "باريس", "عاصمة فرنسا هي باريس.", 0.5, 0.4),
]


def simulated_metrics(name: str, steps: int = 200, rows: int = 32, seed: int = 0) -> list[dict[str, Any]]:
    """What the trainer would log: losses, rewards and descriptions by the real objective."""
    objective, draw = OBJECTIVES[name], torch.Generator().manual_seed(seed)
    state, metrics = objective.init(), []
    for step in range(steps):
        moved = 1 - math.exp(-3 * step / steps)
        batch = _pairs(rows, moved, draw) if objective.feedback == "pair" else _labels(rows, moved, draw)
        if "reference" not in objective.needs:
            batch = replace(batch, reference=None, mismatched_policy=None, mismatched_reference=None)
        if objective.observe_before:
            state = objective.update(state, objective.observe(batch, state))
        loss = float(objective.loss(batch, state).mean())
        described = objective.describe(batch, state)
        if not objective.observe_before:
            state = objective.update(state, objective.observe(batch, state))
        tokens = int(rows * 95 + torch.randint(-400, 400, (), generator=draw))
        seconds = 0.42 + 0.05 * float(torch.rand((), generator=draw)) + 0.3 * (step == 0)
        warm = 0.1 * steps
        metrics.append(
            {
                "step": step + 1,
                "epoch": (step + 1) / steps,
                "loss": loss,
                "learning_rate": 2e-5 * min((step + 1) / (warm + 1), 1 - max(0, step - warm) / (0.9 * steps)),
                "grad_norm": (0.5 + 0.9 * moved) * math.exp(0.25 * float(torch.randn((), generator=draw))),
                "examples": rows,
                "tokens": tokens,
                "seconds": seconds,
                "examples_per_second": rows / seconds,
                "tokens_per_second": tokens / seconds,
                "peak_memory_bytes": 1_450_000_000 + 200_000 * min(step, 50),
                **rewards(batch, 0.1),
                **{f"objective/{key}": value for key, value in described.items()},
            }
        )
    return metrics


def _labels(rows: int, moved: float, draw: torch.Generator) -> LabelLogps:
    reference = -60 - 20 * torch.rand(rows, generator=draw, dtype=torch.float64)
    up = (torch.rand(rows, generator=draw) < 0.8).double()
    ratio = moved * (torch.where(up > 0.5, 4.0, -6.0) + 5 * torch.randn(rows, generator=draw, dtype=torch.float64))
    mismatched = moved * (0.3 + 1.5 * torch.randn(rows, generator=draw, dtype=torch.float64))
    return LabelLogps(
        policy=reference + ratio,
        reference=reference,
        length=torch.full((rows,), 40),
        desirable=up,
        mismatched_policy=reference + mismatched,
        mismatched_reference=reference,
    )


def _pairs(rows: int, moved: float, draw: torch.Generator) -> PairLogps:
    reference = -60 - 20 * torch.rand(2, rows, generator=draw, dtype=torch.float64)
    drift = torch.tensor([[1.0], [-7.0]], dtype=torch.float64)
    policy = reference + moved * (drift + 5 * torch.randn(2, rows, generator=draw, dtype=torch.float64))
    length = torch.full((rows,), 40)
    return PairLogps(policy[0], policy[1], reference[0], reference[1], length, length)


def records(name: str = "bco", **changes: Any) -> dict[str, Any]:
    """The arguments of `run_page` for a run with an objective, any of them changed."""
    metrics = changes.get("metrics", simulated_metrics(name))
    config = make_config(
        {"model": "models/pythia-tiny", "feedback": "data/thumbs.jsonl", "objective": name, "batch_size": 32,
         "learning_rate": 2e-5, "output_dir": Path("aligned"), "holdout": 0.2, "seed": 7}
    )  # fmt: skip
    return {
        "config": config,
        "settings": SETTINGS,
        "metrics": metrics,
        "summary": changes.get("summary") or summarise(metrics, OBJECTIVES[name], HELDOUT, 97.0),
        "heldout": HELDOUT,
        "samples": SAMPLES,
        "facts": {"examples": 1841, "trimmed prompts": 12, "left out": 0},
    } | changes


SETTINGS = [
    Setting("objective", "bco", "beta 0.1, shift_rate 0.1, as in the BCO paper"),
    Setting("schedule", "linear", "warm-up over 10% of the steps, as in the BCO paper"),
    Setting("batch_size", 32, "about 50 steps an epoch for 1,841 examples, within 8 and 128"),
    Setting("learning_rate", 2e-5, "for all weights of a model with 14.1 million parameters"),
    Setting("class_balance", "weights", "1,473 thumbs up, 368 down: weighted 0.625 and 2.5"),
    Setting("tokens_per_microbatch", 2048, "activations of about 720 MiB"),
    Setting("reference", "cached", "the model before training, scored once and kept on disk"),
]

__all__ = ["HELDOUT", "SAMPLES", "SETTINGS", "VERDICT", "AlignConfig", "Summary", "records", "simulated_metrics"]
