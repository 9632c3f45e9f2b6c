"""Which examples make a step, and how a step is laid out over workers and micro-batches.

Pure functions of lengths and a seed: every worker computes the same plan, a resumed run computes it again, and no
result depends on it beyond rounding.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Schedule:
    """The order of examples over a whole run.

    `pool` lists example indices, one entry per visit in an epoch (an oversampled example stands there more than once).
    Every epoch is a fresh shuffle; its last step may be smaller, so no example is lost.
    """

    pool: np.ndarray  # int64 [visits per epoch]
    batch_size: int
    epochs: float
    seed: int
    max_steps: int | None = None
    shuffle: bool = True

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.pool) // self.batch_size)

    @property
    def steps(self) -> int:
        whole = max(1, round(self.epochs * self.steps_per_epoch))
        return whole if self.max_steps is None else min(whole, self.max_steps)

    def examples(self, step: int) -> np.ndarray:
        """Example indices of step `step` (0-based), in the step's order."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = self.pool
        if self.shuffle:
            order = self.pool[np.random.default_rng([self.seed, epoch]).permutation(len(self.pool))]
        return order[position * self.batch_size : (position + 1) * self.batch_size]

    def epoch(self, step: int) -> float:
        """Epochs completed after step `step`."""
        return (step + 1) / self.steps_per_epoch


@dataclass(frozen=True)
class Layout:
    """Micro-batches per worker, each a list of unit indices; every worker has the same number of micro-batches."""

    workers: list[list[list[int]]]

    def padding(self, lengths: Sequence[Sequence[int]], *, packed: bool) -> float:
        """Share of the computed tokens that are padding."""
        micro = [batch for worker in self.workers for batch in worker if batch]
        real = sum(sum(sum(lengths[u]) for u in batch) for batch in micro)
        computed = real if packed else sum(_padded(batch, lengths) for batch in micro)
        return 1 - real / computed if computed else 0.0

    def imbalance(self, lengths: Sequence[Sequence[int]]) -> float:
        """How much more the busiest worker computes than the mean worker."""
        loads = [sum(sum(sum(lengths[u]) for u in batch) for batch in worker) for worker in self.workers]
        mean = sum(loads) / len(loads)
        return max(loads) / mean - 1 if mean else 0.0


def lay_out(
    lengths: Sequence[Sequence[int]], *, tokens_per_microbatch: int, workers: int = 1, packed: bool = True
) -> Layout:
    """Distribute units over workers and micro-batches.

    `lengths[u]` are the token counts of the sequences of unit u; a unit (the two sides of a pair, say) stays together,
    because its loss needs all of them. A unit larger than a micro-batch gets one of its own. Micro-batches may be empty
    on workers for which nothing is left; they are still run, so that collective calls match.
    """
    bins = _pack(lengths, tokens_per_microbatch, workers) if packed else _cut(lengths, tokens_per_microbatch)
    bins.sort(key=lambda batch: (-_cost(batch, lengths, packed), batch))
    rounds = max(1, -(-len(bins) // workers))
    shares: list[list[list[int]]] = [[] for _ in range(workers)]
    loads = [0] * workers
    for batch in bins:
        open_workers = [w for w in range(workers) if len(shares[w]) < rounds]
        target = min(open_workers, key=lambda w: (loads[w], w))
        shares[target].append(batch)
        loads[target] += _cost(batch, lengths, packed)
    for share in shares:
        share.extend([] for _ in range(rounds - len(share)))
    return Layout(shares)


def _pack(lengths: Sequence[Sequence[int]], limit: int, workers: int) -> list[list[int]]:
    """Longest first into the least filled bin; as few bins as hold everything, a multiple of the workers."""
    size = [sum(unit) for unit in lengths]
    order = sorted(range(len(size)), key=lambda u: (-size[u], u))
    total = sum(min(s, limit) for s in size)
    bins = max(1, -(-total // limit))
    bins = -(-bins // workers) * workers
    while True:
        packed = _fill(order, size, bins, limit)
        if packed is not None:
            return [batch for batch in packed if batch]
        bins += workers


def _fill(order: list[int], size: list[int], count: int, limit: int) -> list[list[int]] | None:
    bins: list[list[int]] = [[] for _ in range(count)]
    emptiest = [(0, b) for b in range(count)]  # a heap of (tokens, bin)
    for unit in order:
        filled, target = heapq.heappop(emptiest)
        if bins[target] and filled + size[unit] > limit:
            return None
        bins[target].append(unit)
        heapq.heappush(emptiest, (filled + size[unit], target))
    return bins


def _cut(lengths: Sequence[Sequence[int]], limit: int) -> list[list[int]]:
    """Sorted by length and cut where the padded size would pass the limit."""
    order = sorted(range(len(lengths)), key=lambda u: (-max(lengths[u]), u))
    bins: list[list[int]] = []
    for unit in order:
        if bins and _padded([*bins[-1], unit], lengths) <= limit:
            bins[-1].append(unit)
        else:
            bins.append([unit])
    return bins


def _padded(batch: Sequence[int], lengths: Sequence[Sequence[int]]) -> int:
    rows = sum(len(lengths[u]) for u in batch)
    return rows * max((max(lengths[u]) for u in batch), default=0)


def _cost(batch: Sequence[int], lengths: Sequence[Sequence[int]], packed: bool) -> int:
    return sum(sum(lengths[u]) for u in batch) if packed else _padded(batch, lengths)


def draw_mismatched(
    examples: np.ndarray, prompt_of: np.ndarray, answer_key: Sequence[bytes], seed: int, step: int
) -> np.ndarray:
    """For each example of a step, another example of the same step whose completion is set under its prompt; -1: none.

    Never one with the same prompt and never one with an equal answer: neither would be a mismatch. `prompt_of` and
    `answer_key` are indexed by example. The draw is uniform over what remains and depends on seed and step alone.
    """
    generator = np.random.default_rng([seed, step, 0x4B544F])
    drawn = np.full(len(examples), -1, dtype=np.int64)
    for i, example in enumerate(examples):
        for candidate in generator.permutation(len(examples)):
            other = examples[candidate]
            if prompt_of[other] != prompt_of[example] and answer_key[other] != answer_key[example]:
                drawn[i] = other
                break
    return drawn


def class_weights(label: np.ndarray, weight: np.ndarray, cap: float) -> tuple[float, float]:
    """(w_up, w_down) = N/2N_up, N/2N_down, at most `cap`; 1 for a class that has no examples (BCO, Eq. 8)."""
    up, down = float((label * weight).sum()), float(((1 - label) * weight).sum())
    total = up + down
    return tuple(min(cap, total / (2 * count)) if count > 0 else 1.0 for count in (up, down))  # type: ignore[return-value]


def oversampled(label: np.ndarray) -> np.ndarray:
    """A pool in which the smaller class stands as often as the larger: whole copies, then its first rows once more."""
    up, down = np.flatnonzero(label > 0.5), np.flatnonzero(label <= 0.5)
    if not len(up) or not len(down):
        return np.arange(len(label))
    small, large = sorted((up, down), key=len)
    return np.sort(np.concatenate([large, np.resize(small, len(large))]))
