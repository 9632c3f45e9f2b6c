"""Many integer sequences of different lengths in two flat arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """Sequences of token ids: `flat[offsets[i]:offsets[i + 1]]` is the i-th."""

    flat: np.ndarray  # int32 [total]
    offsets: np.ndarray  # int64 [n + 1]

    @classmethod
    def of(cls, sequences: Iterable[Sequence[int] | np.ndarray]) -> Ragged:
        arrays = [np.asarray(s, dtype=np.int32) for s in sequences]
        offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(a) for a in arrays], out=offsets[1:])
        return cls(np.concatenate(arrays) if arrays else np.zeros(0, np.int32), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.flat[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)
