"""What stands between a model and an objective: small batches of summed log-probs.

Log-probs are sums over the tokens of a completion, in nats. Only the policy carries gradient; everything else is
detached where it is used. Rows may be selected, joined and detached without knowing which fields are filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

_Self = TypeVar("_Self", bound="Rows")
_Batch = TypeVar("_Batch", "LabelLogps", "PairLogps", "GroupLogps")


class Rows:
    """A batch whose every field is None or a tensor [B]; checked when it is made."""

    def __post_init__(self) -> None:
        name, filled = type(self).__name__, self._filled()
        optional = {field.name for field in fields(self) if "None" in str(field.type)}  # type: ignore[arg-type]
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value is None and field.name in optional:
                continue
            if not isinstance(value, Tensor):
                raise ValueError(f"{name}.{field.name} must be a tensor [B]; got {type(value).__name__}")
        shapes = {key: tuple(value.shape) for key, value in filled.items()}
        # One stray [B, 1] would broadcast to [B, B] and train on nonsense.
        if len(set(shapes.values())) != 1 or any(len(shape) != 1 for shape in shapes.values()):
            raise ValueError(f"{name} needs one shape [B] throughout; got {shapes}")

    def _filled(self) -> dict[str, Tensor]:
        named = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in named.items() if isinstance(value, Tensor)}

    def __len__(self) -> int:
        return next(iter(self._filled().values())).shape[0]

    def select(self: _Self, index: Tensor | Sequence[int] | slice) -> _Self:
        """The rows at `index`: positions, a boolean mask [B], or a slice."""
        if isinstance(index, Sequence):
            index = torch.tensor(index, dtype=torch.long)
        return replace(self, **{name: value[index] for name, value in self._filled().items()})  # type: ignore[type-var]

    def detach(self: _Self) -> _Self:
        """The same numbers without gradient."""
        return replace(self, **{name: value.detach() for name, value in self._filled().items()})  # type: ignore[type-var]


@dataclass(frozen=True)
class LabelLogps(Rows):
    """Completions with a thumb each.

    `desirable` is bool, 0/1 or a probability in [0, 1]. A row that drew no mismatched completion holds NaN in both
    `mismatched_*` fields; None in both means that no row drew one.
    """

    policy: Tensor
    reference: Tensor | None
    length: Tensor
    desirable: Tensor
    weight: Tensor | None = None
    mismatched_policy: Tensor | None = None
    mismatched_reference: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _together(self, "mismatched_policy", "mismatched_reference")

    @property
    def log_ratio(self) -> Tensor:
        """Policy minus reference, nats, [B]."""
        return _log_ratio(self.policy, self.reference, "LabelLogps.reference")

    @property
    def liked(self) -> Tensor:
        """`desirable` as a number in [0, 1] of the policy's dtype."""
        return self.desirable.detach().to(self.policy.dtype)


@dataclass(frozen=True)
class PairLogps(Rows):
    """Two completions of one prompt each row, of which one was preferred."""

    policy_chosen: Tensor
    policy_rejected: Tensor
    reference_chosen: Tensor | None
    reference_rejected: Tensor | None
    length_chosen: Tensor
    length_rejected: Tensor
    rating_chosen: Tensor | None = None
    rating_rejected: Tensor | None = None
    tie: Tensor | None = None
    weight: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _together(self, "reference_chosen", "reference_rejected")
        _together(self, "rating_chosen", "rating_rejected")

    @property
    def chosen_log_ratio(self) -> Tensor:
        """Policy minus reference of the chosen side, nats, [B]."""
        return _log_ratio(self.policy_chosen, self.reference_chosen, "PairLogps.reference_chosen")

    @property
    def rejected_log_ratio(self) -> Tensor:
        """Policy minus reference of the rejected side, nats, [B]."""
        return _log_ratio(self.policy_rejected, self.reference_rejected, "PairLogps.reference_rejected")


@dataclass(frozen=True)
class GroupLogps(Rows):
    """Rated completions; rows with an equal `group` number answer one prompt, in any order."""

    policy: Tensor
    reference: Tensor | None
    length: Tensor
    group: Tensor
    rating: Tensor
    weight: Tensor | None = None

    @property
    def log_ratio(self) -> Tensor:
        """Policy minus reference, nats, [N]."""
        return _log_ratio(self.policy, self.reference, "GroupLogps.reference")


Batch = LabelLogps | PairLogps | GroupLogps


def concat(batches: Sequence[_Batch]) -> _Batch:
    """One batch with the rows of all, in order. A field is filled in all of them or in none."""
    if not batches:
        raise ValueError("concat needs at least one batch")
    first = batches[0]
    joined: dict[str, Tensor | None] = {}
    for field in fields(first):
        values = [getattr(batch, field.name) for batch in batches]
        filled = [value for value in values if value is not None]
        if filled and len(filled) < len(values):
            raise ValueError(f"concat: '{field.name}' is filled in {len(filled)} of {len(values)} batches")
        joined[field.name] = torch.cat(filled) if filled else None
    return type(first)(**joined)  # type: ignore[arg-type]


def _log_ratio(policy: Tensor, reference: Tensor | None, name: str) -> Tensor:
    if reference is None:
        raise ValueError(f"this objective needs reference log-probs, but {name} is None")
    return policy - reference.detach().to(policy.dtype)


def _together(batch: Rows, left: str, right: str) -> None:
    if (getattr(batch, left) is None) != (getattr(batch, right) is None):
        raise ValueError(f"{type(batch).__name__}: fill both '{left}' and '{right}', or neither")
