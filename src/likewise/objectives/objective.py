"""The record of one objective: what it learns from, what it needs, and its pure functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from likewise.objectives.batches import Batch
from likewise.objectives.options import check_options, declared_options

Feedback = Literal["label", "pair", "group"]
State = dict[str, Tensor]
Sums = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Memory:
    """What an objective carries from step to step, as three pure functions that receive every option.

    `before`: a step's losses use what that same step observed, so the trainer observes and updates before them;
    otherwise they use what the steps before it left.
    """

    init: Callable[..., State]
    observe: Callable[..., Sums]
    update: Callable[..., State]
    before: bool = False


@dataclass(frozen=True)
class Objective:
    """A way to learn from feedback. The trainer asks what it needs, never which one it is.

    Every method takes options by keyword, fills the rest with defaults and raises BadConfig for a bad one.
    State tensors are float64 and without gradient; inside `loss` the state is a constant.
    """

    name: str
    feedback: Feedback
    function: Callable[..., Tensor]
    needs: frozenset[str] = frozenset()
    memory: Memory | None = None
    description: Callable[..., dict[str, float]] | None = None
    liked_only: bool = False  # thumbs down teach it nothing, so they are left out before training

    @property
    def options(self) -> dict[str, Any]:
        """Names and defaults: the keyword-only arguments of the loss."""
        return {option.name: option.default for option in declared_options(self.function)}

    @property
    def observe_before(self) -> bool:
        """Whether a step is observed, and the state updated, before the losses of that same step."""
        return self.memory is not None and self.memory.before

    def init(self, **options: Any) -> State:
        """The state before the first step; empty for an objective without one."""
        checked = check_options(self, options)
        return self.memory.init(**checked) if self.memory else {}

    def loss(self, batch: Batch, state: State | None = None, **options: Any) -> Tensor:
        """Loss of each row, [B], differentiable in the policy. `batch.weight` is not applied: the trainer does that."""
        checked = check_options(self, options)
        return self.function(batch, state, **checked) if self.memory else self.function(batch, **checked)

    def observe(self, batch: Batch, state: State, **options: Any) -> Sums:
        """What one micro-batch contributes to the state: name -> (sum, count), float64, without gradient.

        Sums of micro-batches and workers are added field by field (`add_sums`); a class that is absent gives 0, 0.
        """
        checked = check_options(self, options)
        if self.memory is None:
            return {}
        with torch.no_grad():
            return self.memory.observe(batch, state, **checked)

    def update(self, state: State, sums: Sums, **options: Any) -> State:
        """The next state, once per optimizer step, from the sums over all its micro-batches and workers."""
        checked = check_options(self, options)
        if self.memory is None:
            return {}
        with torch.no_grad():
            return self.memory.update(state, sums, **checked)

    def describe(self, batch: Batch, state: State, **options: Any) -> dict[str, float]:
        """What the objective knows about itself, from one whole step and the state its losses used.

        Every value is finite; a key is absent where its value is not defined (one class only, say).
        """
        checked = check_options(self, options)
        if self.description is None or len(batch) == 0:
            return {}
        with torch.no_grad():
            return self.description(batch, state, **checked)


def add_sums(*parts: Sums) -> Sums:
    """The sums of several micro-batches or workers as those of one."""
    total: Sums = {}
    for part in parts:
        for name, (value, count) in part.items():
            before = total.get(name)
            total[name] = (value, count) if before is None else (before[0] + value, before[1] + count)
    return total
