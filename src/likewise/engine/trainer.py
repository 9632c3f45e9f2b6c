"""The one trainer. It owns what is stateful (model, optimizer, workers, objective state) and asks an objective what it
needs, never which one it is.

A step: lay its examples out; per micro-batch forward, loss, Σ weight·loss / (Σ weight of the whole step), backward;
gather the log-probs of all its sequences; clip; optimizer; objective update; log. Since every worker ends up with all
log-probs of the step, metrics and objective state are computed once from the whole step, in its own order: how the step
was cut cannot reach them.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from likewise.data.tokens import TokenizedFeedback
from likewise.engine.checkpoint import Checkpoints, TrainingTensors
from likewise.engine.config import AlignConfig
from likewise.engine.heap import give_back_holes
from likewise.engine.logps import collate
from likewise.engine.plan import Layout, Schedule, lay_out
from likewise.engine.sequences import Mismatched, Sequences, make_batch, own_sequences
from likewise.errors import TrainingDiverged
from likewise.objectives.batches import Batch, GroupLogps, LabelLogps, PairLogps
from likewise.objectives.objective import Objective

_SCORE_WINDOW = 2048  # sequences laid out together when scoring; enough for little padding, few enough to plan quickly

Metrics = dict[str, float | int]
Reference = Callable[[np.ndarray, Any], Tensor]


class Scorer:
    """Runs the model over sequences on all workers: the layout, the padding and the gathering."""

    def __init__(
        self, model: torch.nn.Module, accelerator: Any, *, packed: bool, tokens_per_microbatch: int, pad_token: int
    ) -> None:
        self.model, self.accelerator = model, accelerator
        self.packed, self.tokens, self.pad_token = packed, tokens_per_microbatch, pad_token

    @property
    def workers(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def worker(self) -> int:
        return int(self.accelerator.process_index)

    def lay_out(self, lengths: list[list[int]]) -> Layout:
        return lay_out(lengths, tokens_per_microbatch=self.tokens, workers=self.workers, packed=self.packed)

    def collate(self, sequences: Sequences, numbers: np.ndarray) -> Any:
        rows = [sequences[int(n)] for n in numbers]
        return collate(rows, packed=self.packed, pad_token=self.pad_token).to(self.accelerator.device)

    def sum(self, tensor: Tensor) -> Tensor:
        """Over the workers, each of which filled its own places; on the CPU."""
        if self.workers > 1:
            tensor = self.accelerator.reduce(tensor.to(self.accelerator.device), reduction="sum")
        return tensor.cpu()

    def score(
        self,
        sequences: Sequences,
        numbers: np.ndarray,
        *,
        reference: Reference | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Log-probs without gradient, [1 or 2, len(numbers)] float32: the model's, then the reference's if given."""
        result = torch.zeros(1 + (reference is not None), len(numbers))
        lengths = sequences.lengths[numbers]
        by_length = np.argsort(-lengths, kind="stable")
        for start in range(0, len(numbers), _SCORE_WINDOW):
            window = by_length[start : start + _SCORE_WINDOW]
            layout = self.lay_out([[int(lengths[i])] for i in window])
            for units in layout.workers[self.worker]:
                places = window[units] if units else window[:1]
                batch = self.collate(sequences, numbers[places])
                with torch.no_grad():
                    policy = self.model(batch).float().cpu()
                if units:
                    result[0, torch.from_numpy(places)] = policy
                if reference is not None:
                    other = reference(numbers[places], batch).float().cpu()
                    if units:
                        result[1, torch.from_numpy(places)] = other
                if progress is not None:
                    progress(len(units))
        return self.sum(result)


@dataclass
class Trainer:
    """Everything a run is made of; `run` yields the metrics of each step."""

    config: AlignConfig
    objective: Objective
    feedback: TokenizedFeedback
    sequences: Sequences
    mismatched: Mismatched | None
    schedule: Schedule
    weight: np.ndarray  # float64 [examples]: the row's weight times its class weight
    scorer: Scorer
    optimizer: torch.optim.Optimizer
    reference: Reference | None
    checkpoints: Checkpoints
    identity: dict[str, Any]
    learning_rate: float
    checkpoint_every: int
    sharded: bool = False
    state: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0

    def __post_init__(self) -> None:
        self.state = self.objective.init(**self.config.options)

    @property
    def _accelerator(self) -> Any:
        return self.scorer.accelerator

    def resume(self) -> int:
        """Go on from the newest complete checkpoint; the step it stands at, 0 if there is none."""
        self.checkpoints.clear_temporary()
        newest = self.checkpoints.newest()
        if newest is not None:
            self.step, tensors = self.checkpoints.load(newest)
            self.state = tensors.restore(self.scorer.model, self.optimizer, sharded=self.sharded)
        return self.step

    def run(self) -> Iterator[Metrics]:
        """Train to the end, checkpointing on the way. Raises: TrainingDiverged, CannotSave."""
        while self.step < self.schedule.steps:
            metrics = self._one_step(self.step)
            self.step += 1
            yield metrics
            due = self.checkpoint_every and self.step % self.checkpoint_every == 0
            if self.checkpoint_every and (due or self.step == self.schedule.steps):
                self.save()

    def save(self) -> None:
        # Gathering a sharded model takes every worker; writing takes one.
        tensors = TrainingTensors.of(self.scorer.model, self.optimizer, self.state, sharded=self.sharded)
        if self._accelerator.is_main_process:
            self.checkpoints.save(self.step, tensors, self.identity)
        self._accelerator.wait_for_everyone()

    # -- one step -----------------------------------------------------------------------------------------------------

    def _one_step(self, step: int) -> Metrics:
        begun = time.perf_counter()
        examples = self.schedule.examples(step)
        own = own_sequences(self.feedback, examples)
        weight = torch.from_numpy(self.weight[examples])
        mismatched = self._score_mismatched(step) if self.mismatched is not None else None
        if self.objective.observe_before:
            blank = torch.zeros(len(own))
            self._update(self._batch(examples, blank, blank, weight, mismatched))
        policy, reference = self._forward_backward(examples, own, weight)
        batch = self._batch(examples, policy, reference, weight, mismatched)
        loss = self._mean_loss(batch, weight)
        self._check_finite(step, examples, own, policy, loss)
        if step == 0 and reference is not None:
            self._check_closed_form(batch, weight, loss, examples)
        rate = learning_rate_at(step, self.schedule.steps, self.config) * self.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        norm = self._clip()
        if not math.isfinite(norm):
            raise TrainingDiverged(self._diverged(step, "the gradient is not finite", examples))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        described = self.objective.describe(batch, self.state, **self.config.options)
        if not self.objective.observe_before:
            self._update(batch)
        seconds = time.perf_counter() - begun
        tokens = int(self.sequences.lengths[own].sum())
        return {
            "step": step + 1,
            "epoch": round(self.schedule.epoch(step), 6),
            "loss": loss,
            "learning_rate": rate,
            "grad_norm": norm,
            "examples": len(examples),
            "tokens": tokens,
            "seconds": round(seconds, 6),
            "examples_per_second": len(examples) / seconds,
            "tokens_per_second": tokens / seconds,
            "peak_memory_bytes": peak_memory(self._accelerator.device),
            **rewards(batch, self._reward_scale),
            **{f"objective/{key}": value for key, value in described.items()},
        }

    def _forward_backward(self, examples: np.ndarray, own: np.ndarray, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """Accumulate the gradient of the step's mean loss; log-probs of all its sequences, policy and reference."""
        sizes = self.feedback.first[examples + 1] - self.feedback.first[examples]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        lengths = self.sequences.lengths[own]
        layout = self.scorer.lay_out([lengths[a:b].tolist() for a, b in pairwise(offsets)])
        mine = layout.workers[self.scorer.worker]
        gathered = torch.zeros(1 if self.reference is None else 2, len(own))
        total, model = float(weight.sum()), self.scorer.model
        for i, units in enumerate(mine):
            if self._accelerator.device.type == "cpu":
                give_back_holes()
            # Every worker runs the same number of passes; one without work repeats an example with weight zero.
            idle, chosen = not units, np.array(units or [0])
            places = np.concatenate([np.arange(offsets[u], offsets[u + 1]) for u in chosen])
            batch = self.scorer.collate(self.sequences, own[places])
            with nullcontext() if i == len(mine) - 1 or self.sharded else self._accelerator.no_sync(model):
                policy = model(batch)
                reference = None
                if self.reference is not None:
                    reference = self.reference(own[places], batch).to(policy.device)
                share = weight[chosen].to(policy.device, policy.dtype) * (0.0 if idle else 1.0)
                losses = self.objective.loss(
                    self._batch(examples[chosen], policy, reference, share), self.state, **self.config.options
                )
                # Workers average gradients; times their number this is the sum over all of them.
                self._accelerator.backward((share * losses).sum() * (self.scorer.workers / total))
            if not idle:
                gathered[0, torch.from_numpy(places)] = policy.detach().float().cpu()
                if reference is not None:
                    gathered[1, torch.from_numpy(places)] = reference.float().cpu()
        gathered = self.scorer.sum(gathered)
        return gathered[0], gathered[1] if self.reference is not None else None

    def _batch(
        self,
        examples: np.ndarray,
        policy: Tensor,
        reference: Tensor | None,
        weight: Tensor,
        mismatched: tuple[Tensor, Tensor] | None = None,
    ) -> Batch:
        return make_batch(self.feedback, examples, policy, reference, weight.to(policy.dtype), mismatched)

    def _score_mismatched(self, step: int) -> tuple[Tensor, Tensor]:
        """Log-probs of the step's mismatched completions, NaN where an example drew none, [examples] each."""
        assert self.mismatched is not None
        assert self.reference is not None
        chosen = self.mismatched.by_step[step]
        drawn = np.flatnonzero(chosen >= 0)
        result = torch.full((2, len(chosen)), float("nan"))
        if len(drawn):
            scored = self.scorer.score(self.sequences, chosen[drawn], reference=self.reference)
            result[:, torch.from_numpy(drawn)] = scored
        return result[0], result[1]

    def _update(self, batch: Batch) -> None:
        sums = self.objective.observe(batch, self.state, **self.config.options)
        self.state = self.objective.update(self.state, sums, **self.config.options)

    def _mean_loss(self, batch: Batch, weight: Tensor) -> float:
        with torch.no_grad():
            losses = self.objective.loss(batch, self.state, **self.config.options).double()
        return float((losses * weight).sum() / weight.sum())

    def _clip(self) -> float:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm: Any = torch.nn.utils.clip_grad_norm_(parameters, self.config.max_grad_norm)
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)  # sharded: over all workers

    @property
    def _reward_scale(self) -> float:
        options = self.objective.options | self.config.options
        return float(options.get("beta", options.get("tau", 1.0)))

    # -- what must hold -----------------------------------------------------------------------------------------------

    def _check_finite(self, step: int, examples: np.ndarray, own: np.ndarray, policy: Tensor, loss: float) -> None:
        if math.isfinite(loss) and bool(policy.isfinite().all()):
            return
        bad = set(own[(~policy.isfinite()).numpy()].tolist())
        rows = [e for e in examples if bad & set(range(self.feedback.first[e], self.feedback.first[e + 1]))]
        raise TrainingDiverged(self._diverged(step, "the loss is not finite", rows or examples))

    def _diverged(self, step: int, what: str, examples: Any) -> str:
        rows = sorted({int(self.feedback.source_row[e]) for e in examples})
        shown = ", ".join(str(r) for r in rows[:8]) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")
        newest = self.checkpoints.newest()
        kept = f"The last checkpoint is whole: {newest}." if newest else "There was no checkpoint yet."
        return (
            f"step {step + 1}: {what}. Rows of that step in {self.feedback.source}: {shown}.\n{kept} The weights of "
            "this step were not changed.\nTry a smaller --learning-rate, look at those rows, or use --dtype float32."
        )

    def _check_closed_form(self, batch: Batch, weight: Tensor, loss: float, examples: np.ndarray) -> None:
        """Before the first update the policy is the reference, so the loss is known without any model."""
        ratio, length, same = at_reference(batch)
        expected = self._mean_loss(same, weight)
        tolerance = 1e-3 if self.config.dtype == "float32" else 5e-2
        # The loss alone would miss what cancels in it, such as a shift that both sides of a pair share.
        apart = float((ratio.abs() / length.clamp(min=1)).mean())
        if abs(loss - expected) <= tolerance * max(1.0, abs(expected)) and apart <= tolerance:
            return
        row = int(self.feedback.source_row[examples[int(ratio.abs().argmax())]])
        raise TrainingDiverged(
            f"step 1: before any update the loss should be {expected:.4f} (policy = reference), but it is {loss:.4f}; "
            f"log-ratios reach {float(ratio.abs().max()):.3g} nats (row {row}).\n"
            "Policy and reference are not the same model: was the reference cache written by another program, or does "
            "the model compute at random (dropout, routing)? Try --reference live, or clear the cache folder."
        )


def at_reference(batch: Batch) -> tuple[Tensor, Tensor, Batch]:
    """Per example log-ratio and length (the larger of a pair or group); the batch with the policy at the reference."""
    if isinstance(batch, PairLogps):
        ratio = torch.maximum(batch.chosen_log_ratio.abs(), batch.rejected_log_ratio.abs())
        assert batch.reference_chosen is not None
        assert batch.reference_rejected is not None
        equal = replace(batch, policy_chosen=batch.reference_chosen, policy_rejected=batch.reference_rejected)
        return ratio, torch.maximum(batch.length_chosen, batch.length_rejected), equal
    assert batch.reference is not None
    same = replace(batch, policy=batch.reference)
    if isinstance(batch, GroupLogps):
        groups = int(batch.group.max()) + 1
        ratio = torch.zeros(groups).index_reduce(0, batch.group, batch.log_ratio.abs(), "amax")
        return ratio, torch.ones(groups).index_reduce(0, batch.group, batch.length.float(), "amax"), same
    return batch.log_ratio, batch.length, same


def rewards(batch: Batch, scale: float) -> Metrics:
    """Mean implicit rewards of a step, per class or side; a class that is absent has no entry."""
    with torch.no_grad():
        if isinstance(batch, PairLogps):
            if batch.reference_chosen is None:
                return {}
            chosen, rejected = batch.chosen_log_ratio.double(), batch.rejected_log_ratio.double()
            return {
                "reward/chosen": float(chosen.mean() * scale),
                "reward/rejected": float(rejected.mean() * scale),
                "reward/margin": float((chosen - rejected).mean() * scale),
                "log_ratio/mean": float(torch.cat([chosen, rejected]).mean()),
                "log_ratio/chosen": float(chosen.mean()),
            }
        if batch.reference is None:
            return {}
        ratio = batch.log_ratio.double()
        result: Metrics = {"log_ratio/mean": float(ratio.mean())}
        if isinstance(batch, LabelLogps):
            up = batch.liked.double()
            means = {}
            for name, share in (("desirable", up), ("undesirable", 1 - up)):
                if float(share.sum()) > 0:
                    means[name] = float((ratio * share).sum() / share.sum() * scale)
                    result[f"reward/{name}"] = means[name]
            if len(means) == 2:
                result["reward/margin"] = means["desirable"] - means["undesirable"]
        return result


def learning_rate_at(step: int, steps: int, config: AlignConfig) -> float:
    """Share of the peak learning rate at a step: a linear warm-up, then down to zero or constant."""
    warm = round(config.warmup * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    done = (step - warm) / max(1, steps - warm)
    if config.schedule == "constant":
        return 1.0
    return 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def peak_memory(device: torch.device) -> int:
    """Most memory held so far: of the CUDA device where there is one, else of the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
