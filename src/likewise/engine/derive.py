"""Values that follow from the data and the model, each with the reason that is printed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from likewise.data.tokens import TokenizedFeedback
from likewise.engine.config import AlignConfig
from likewise.engine.plan import class_weights, oversampled
from likewise.engine.progress import Setting
from likewise.errors import BadFeedback
from likewise.objectives.objective import Objective

_PAPER = "as in the BCO paper"
_ACTIVATION_BUDGET = 2**28  # bytes of activations on a CPU
_CPU_TOKENS = 1024  # beyond this a CPU gains nothing from more tokens at once


def batch_size(config: AlignConfig, examples: int) -> Setting:
    if config.batch_size is not None:
        return Setting("batch_size", config.batch_size, "given")
    size = min(128, max(8, 2 ** round(math.log2(max(1, examples / 50)))))
    return Setting("batch_size", size, f"about 50 steps an epoch for {examples:,} examples, within 8 and 128")


def learning_rate(config: AlignConfig, parameters: int) -> Setting:
    if config.learning_rate is not None:
        return Setting("learning_rate", config.learning_rate, "given")
    if config.lora_rank:
        return Setting("learning_rate", 5e-5, "the usual size for adapters")
    bands = ((1_500_000_000, 5e-7), (300_000_000, 2e-6), (50_000_000, 5e-6), (0, 2e-5))
    rate = next(rate for least, rate in bands if parameters >= least)
    return Setting("learning_rate", rate, f"for all weights of a model with {_millions(parameters)} parameters")


def example_weights(
    config: AlignConfig, objective: Objective, feedback: TokenizedFeedback, train: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Setting | None]:
    """(weight per example, pool of example indices for one epoch, what to say).

    Thumbs of both classes get the same total weight, either by class weights or by showing the rarer class more often,
    never by both. Raises: BadFeedback where there is one class alone and that was not allowed.
    """
    weight = feedback.weight.copy()
    if feedback.label is None:
        return weight, train, None
    label = feedback.label[train]
    ups, downs = int((label > 0.5).sum()), int((label <= 0.5).sum())
    counts = f"{ups:,} thumbs up, {downs:,} down"
    if objective.liked_only:
        why = f"{counts}; {objective.name} learns from thumbs up alone"
        return weight, train[label > 0], Setting("class_balance", "none", why)
    if not ups or not downs:
        if not config.allow_one_class:
            raise one_class(objective, "up" if ups else "down", len(train))
        return weight, train, Setting("class_balance", "none", f"{counts}: one class alone, as you allowed")
    if config.class_balance == "none":
        return weight, train, Setting("class_balance", "none", counts)
    if config.class_balance == "oversample":
        pool = train[oversampled(label)]
        return weight, pool, Setting("class_balance", "oversample", f"{counts}; an epoch shows {len(pool):,}")
    up, down = class_weights(label, feedback.weight[train], config.class_weight_cap)
    full = feedback.label
    weight *= full * up + (1 - full) * down
    capped = f", capped at {config.class_weight_cap:g}" if max(up, down) == config.class_weight_cap else ""
    return weight, train, Setting("class_balance", "weights", f"{counts}: weighted {up:.3g} and {down:.3g}{capped}")


def one_class(objective: Objective, side: str, count: int) -> BadFeedback:
    """What can and cannot be learnt from thumbs that all say the same."""
    other = "down" if side == "up" else "up"
    learnt = (
        "From thumbs up alone nothing says what to avoid: the likelihood of these answers rises, good and bad habits "
        "in them alike. That is what --objective sft does, more plainly."
        if side == "up"
        else "From thumbs down alone nothing says what to do instead: the likelihood of these answers falls and where "
        "it goes is left to chance, so the model soon degrades."
    )
    return BadFeedback(
        f"all {count:,} labels are thumbs {side}, and {objective.name!r} learns from the difference between up and "
        f"down.\n{learnt}\nAdd thumbs {other}, or go on all the same with --allow-one-class (few steps, a small "
        "learning rate)."
    )


def tokens_per_microbatch(config: AlignConfig, model: Any, device: torch.device, longest: int) -> Setting:
    if config.tokens_per_microbatch is not None:
        return Setting("tokens_per_microbatch", config.tokens_per_microbatch, "given")
    shape = model.config.get_text_config()
    width = int(getattr(shape, "hidden_size", 0) or 768)
    layers = 1 if config.gradient_checkpointing else int(getattr(shape, "num_hidden_layers", 0) or 12)
    per_token = layers * width * 32 * (2 if config.dtype == "bfloat16" else 4)  # about 32 activations a layer
    budget = _ACTIVATION_BUDGET
    if device.type == "cuda":
        budget = int(torch.cuda.mem_get_info(device)[0] * 0.3)
    fitting = max(256, 2 ** int(math.log2(max(1, budget // per_token))))
    limit = 65536 if device.type == "cuda" else _CPU_TOKENS
    reason = f"activations of about {_size(per_token * min(fitting, limit))}; longer sequences run alone"
    return Setting(
        "tokens_per_microbatch", min(fitting, limit), reason if longest > min(fitting, limit) else reason.split(";")[0]
    )


def checkpoint_every(config: AlignConfig, steps: int) -> Setting:
    if config.checkpoint_every is not None:
        return Setting("checkpoint_every", config.checkpoint_every, "given" if config.checkpoint_every else "none")
    every = max(1, -(-steps // 10))
    return Setting("checkpoint_every", every, f"ten times in {steps:,} steps")


def paper_settings(config: AlignConfig, objective: Objective) -> list[Setting]:
    """What stays at the paper's values, or was given."""
    options = objective.options | config.options
    shown = ", ".join(f"{name} {value}" for name, value in options.items()) or "no options"
    default = AlignConfig(model="", feedback="")
    schedule_default = (config.schedule, config.warmup) == (default.schedule, default.warmup)
    length_default = (config.max_tokens, config.max_prompt_tokens) == (default.max_tokens, default.max_prompt_tokens)
    return [
        Setting(
            "objective",
            objective.name,
            shown + (f", {_PAPER}" if objective.name == "bco" and not config.options else ""),
        ),
        Setting(
            "schedule",
            config.schedule,
            f"warm-up over {config.warmup:.0%} of the steps" + (f", {_PAPER}" if schedule_default else ""),
        ),
        Setting(
            "max_tokens",
            f"{config.max_tokens:,}",
            f"at most {config.max_prompt_tokens:,} of prompt" + (f", {_PAPER}" if length_default else ""),
        ),
    ]


def _millions(count: int) -> str:
    return f"{count / 1e9:.1f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
