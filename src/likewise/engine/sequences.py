"""The table of everything a run scores, and the typed batches an objective is given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import xxhash
from torch import Tensor

from likewise.data.ragged import Ragged
from likewise.data.tokens import TokenizedFeedback
from likewise.engine.plan import Schedule, draw_mismatched
from likewise.objectives.batches import Batch, GroupLogps, LabelLogps, PairLogps


@dataclass(frozen=True)
class Sequences:
    """Prompts with completions, by number: the rows' own first, then those an objective sets together itself."""

    prompts: Ragged
    completions: Ragged
    prompt_of: np.ndarray  # int64 [sequences]
    completion_of: np.ndarray  # int64 [sequences]

    @classmethod
    def of(cls, feedback: TokenizedFeedback) -> Sequences:
        own = np.arange(len(feedback.completions))
        return cls(feedback.prompts, feedback.completions, feedback.prompt_of, own)

    def __len__(self) -> int:
        return len(self.prompt_of)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.prompts[self.prompt_of[index]], self.completions[self.completion_of[index]]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of prompt and completion together."""
        return self.prompts.lengths[self.prompt_of] + self.completions.lengths[self.completion_of]

    def extended(self, prompt_of: np.ndarray, completion_of: np.ndarray) -> Sequences:
        return Sequences(
            self.prompts,
            self.completions,
            np.concatenate([self.prompt_of, prompt_of]),
            np.concatenate([self.completion_of, completion_of]),
        )

    def digest(self) -> str:
        """A hash of the tokens in their order: the same text under another tokenizer or template is another table."""
        ragged = (self.prompts.flat, self.prompts.offsets, self.completions.flat, self.completions.offsets)
        return digest_of(*ragged, self.prompt_of, self.completion_of)


def digest_of(*arrays: np.ndarray | None) -> str:
    """A hash of some arrays, in order; None is a value of its own."""
    digest = xxhash.xxh3_128()
    for array in arrays:
        digest.update(b"none|" if array is None else np.ascontiguousarray(array).tobytes() + b"|")
    return digest.hexdigest()


@dataclass(frozen=True)
class Mismatched:
    """For every step, which sequence sets another row's completion under each example's prompt; -1: none."""

    by_step: list[np.ndarray]

    @classmethod
    def draw(
        cls, feedback: TokenizedFeedback, schedule: Schedule, sequences: Sequences, max_tokens: int
    ) -> tuple[Mismatched, Sequences]:
        """Draw for the whole run inside each step, and add the new sequences to the table.

        A combination that would be longer than `max_tokens` is left out.
        """
        prompt_of = feedback.example_prompt
        answers = [completion.tobytes() for completion in feedback.completions]
        prompt_lengths, completion_lengths = sequences.prompts.lengths, sequences.completions.lengths
        number: dict[tuple[int, int], int] = {}
        by_step = []
        for step in range(schedule.steps):
            examples = schedule.examples(step)
            others = draw_mismatched(examples, prompt_of, answers, schedule.seed, step)
            chosen = np.full(len(examples), -1, dtype=np.int64)
            for i, (example, other) in enumerate(zip(examples, others)):
                if other < 0:
                    continue
                pair = (int(prompt_of[example]), int(other))
                if prompt_lengths[pair[0]] + completion_lengths[pair[1]] <= max_tokens:
                    chosen[i] = len(sequences) + number.setdefault(pair, len(number))
            by_step.append(chosen)
        pairs = np.array(list(number), dtype=np.int64).reshape(-1, 2)
        return cls(by_step), sequences.extended(pairs[:, 0], pairs[:, 1])


def make_batch(
    feedback: TokenizedFeedback,
    examples: np.ndarray,
    policy: Tensor,
    reference: Tensor | None,
    weight: Tensor,
    mismatched: tuple[Tensor, Tensor] | None = None,
) -> Batch:
    """The typed batch of some examples, from the log-probs of their sequences in order.

    Shapes: `policy` and `reference` [sequences of the examples], `weight` [examples]; `mismatched` holds the policy's
    and the reference's log-probs, [examples] each.
    """
    own = own_sequences(feedback, examples)
    length = torch.from_numpy(feedback.completion_lengths[own]).to(policy.device)
    if feedback.kind == "label":
        assert feedback.label is not None
        desirable = torch.from_numpy(feedback.label[examples]).to(policy.device, policy.dtype)
        return LabelLogps(policy, reference, length, desirable, weight, *(mismatched or (None, None)))
    assert feedback.rating is not None
    rating = torch.from_numpy(feedback.rating[own]).to(policy.device, policy.dtype)
    if feedback.kind == "pair":
        assert feedback.tie is not None
        has_ratings = not bool(rating.isnan().any())
        return PairLogps(
            policy_chosen=policy[0::2],
            policy_rejected=policy[1::2],
            reference_chosen=reference[0::2] if reference is not None else None,
            reference_rejected=reference[1::2] if reference is not None else None,
            length_chosen=length[0::2],
            length_rejected=length[1::2],
            rating_chosen=rating[0::2] if has_ratings else None,
            rating_rejected=rating[1::2] if has_ratings else None,
            tie=torch.from_numpy(feedback.tie[examples]).to(policy.device),
            weight=weight,
        )
    sizes = torch.from_numpy(feedback.first[examples + 1] - feedback.first[examples])
    group = torch.repeat_interleave(torch.arange(len(examples)), sizes).to(policy.device)
    return GroupLogps(policy, reference, length, group, rating, weight[group])


def own_sequences(feedback: TokenizedFeedback, examples: np.ndarray) -> np.ndarray:
    """The sequences of some examples, in order, [sequences]."""
    if feedback.kind == "label":
        return feedback.first[examples]
    spans = [np.arange(feedback.first[e], feedback.first[e + 1]) for e in examples]
    return np.concatenate(spans) if spans else np.zeros(0, dtype=np.int64)
