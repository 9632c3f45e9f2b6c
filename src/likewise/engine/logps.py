"""Log-probs of completions: the only place that sees hidden states, and nobody ever sees logits.

`LogProbModel` wraps a causal language model. Its forward takes a laid-out micro-batch and returns the summed log-prob
of every completion in it, [sequences], float32, in nats. It runs the decoder, picks the hidden states that predict
completion tokens, and projects those alone, in chunks: in neither direction does more than one chunk of
[tokens, vocabulary] exist. Being a module whose forward does all of it, it works alike under DDP, FSDP2 and adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from likewise.engine.attention import use_own_attention, use_packed_attention
from likewise.engine.gradients import grad_of, subtract_product, use_direct_embedding, use_plain_embedding
from likewise.engine.linear import FastLinear, times_transposed, use_fast_linear, use_plain_linear

_CHUNK_BYTES = 24 * 2**20  # float32 logits of one chunk; beyond this the matmuls gain nothing


@dataclass(frozen=True)
class MicroBatch:
    """Completions laid out in rows.

    Padded: one sequence a row, `cumulative` is None. Packed: all sequences one after another in a single row, with
    positions that restart and `cumulative` [sequences + 1], the offsets at which they begin.
    """

    input_ids: Tensor  # int64 [rows, width]
    position_ids: Tensor  # int64 [rows, width]
    picks: Tensor  # int64 [completion tokens]: flat places whose hidden state predicts the next completion token
    targets: Tensor  # int64 [completion tokens]
    lengths: Tensor  # int64 [sequences]: completion tokens of each
    cumulative: Tensor | None = None  # int32 [sequences + 1]

    def to(self, device: torch.device) -> MicroBatch:
        moved: Any = {k: v.to(device, non_blocking=True) if v is not None else None for k, v in vars(self).items()}
        return MicroBatch(**moved)

    @property
    def tokens(self) -> int:
        """Tokens computed, padding included."""
        return self.input_ids.numel()


def collate(sequences: Sequence[tuple[np.ndarray, np.ndarray]], *, packed: bool, pad_token: int = 0) -> MicroBatch:
    """Lay out (prompt ids, completion ids) in rows. Padding stands on the right, where causal attention ignores it."""
    totals = [len(p) + len(c) for p, c in sequences]
    width = sum(totals) if packed else max(totals)
    rows = 1 if packed else len(sequences)
    input_ids = np.full((rows, width), pad_token, dtype=np.int64)
    positions = np.zeros((rows, width), dtype=np.int64) if packed else np.tile(np.arange(width), (rows, 1))
    starts = np.concatenate([[0], np.cumsum(totals)]) if packed else np.arange(rows + 1) * width
    picks, targets = [], []
    flat_ids, flat_positions = input_ids.reshape(-1), positions.reshape(-1)
    for start, total, (prompt, completion) in zip(starts, totals, sequences):
        flat_ids[start : start + len(prompt)] = prompt
        flat_ids[start + len(prompt) : start + total] = completion
        if packed:
            flat_positions[start : start + total] = np.arange(total)
        picks.append(np.arange(start + len(prompt) - 1, start + total - 1))
        targets.append(completion)
    return MicroBatch(
        input_ids=torch.from_numpy(input_ids),
        position_ids=torch.from_numpy(positions),
        picks=torch.from_numpy(np.concatenate(picks).astype(np.int64)),
        targets=torch.from_numpy(np.concatenate(targets).astype(np.int64)),
        lengths=torch.tensor([len(c) for _, c in sequences], dtype=torch.int64),
        cumulative=torch.from_numpy(starts.astype(np.int32)) if packed else None,
    )


@dataclass(frozen=True)
class HeadShape:
    """What a model family does between hidden states and logits."""

    hidden_scale: float = 1.0
    logit_scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, config: Any) -> HeadShape:
        def number(name: str) -> float | None:
            value = getattr(config, name, None)
            return float(value) if isinstance(value, int | float) and value else None

        scale = number("logit_scale") or 1.0  # Cohere multiplies
        if (divisor := number("logits_scaling")) is not None:  # Granite divides
            scale /= divisor
        hidden = 1.0
        if (base := number("dim_model_base")) is not None:  # MiniCPM
            hidden = base / float(config.hidden_size)
        return cls(hidden, scale, number("final_logit_softcapping"))

    def apply(self, raw: Tensor) -> Tensor:
        """Raw head outputs to the model's logits, float32."""
        logits = raw.float() * self.logit_scale
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap

    def apply_(self, raw: Tensor) -> Tensor:
        """The same in place, for float32."""
        if self.logit_scale != 1.0:
            raw.mul_(self.logit_scale)
        return raw if self.softcap is None else raw.div_(self.softcap).tanh_().mul_(self.softcap)

    def slope(self, logits: Tensor) -> Tensor | None:
        """d logits / d raw, given the logits; None where it is `logit_scale` everywhere, without a soft cap."""
        return None if self.softcap is None else self.logit_scale * (1 - (logits / self.softcap) ** 2)


class _TokenLogps(torch.autograd.Function):
    """log softmax(head(hidden))[targets], [tokens] float32, projecting `chunk` tokens at a time.

    The backward pass projects each chunk again instead of keeping [tokens, vocabulary]; only the last one still stands,
    so it goes first. With p the softmax of a chunk, the gradient in its logits is g·(onehot - p): the factor g is
    applied to [tokens, hidden], never to [tokens, vocabulary], and the one-hot part by looking rows up.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        shape: HeadShape,
        chunk: int,
        direct: nn.Parameter | None,
    ) -> Tensor:
        count, logits = len(targets), None
        normaliser = torch.empty(count, dtype=torch.float32, device=hidden.device)
        picked = torch.empty_like(normaliser)
        for start in range(0, count, chunk):
            part = slice(start, start + chunk)
            del logits  # the chunk before, so that there is never more than one
            logits = _logits(hidden[part], weight, bias, shape)
            torch.logsumexp(logits, dim=1, out=normaliser[part])
            picked[part] = logits.gather(1, targets[part, None]).squeeze(1)
        ctx.save_for_backward(hidden, weight, bias, targets, normaliser)
        ctx.shape, ctx.chunk, ctx.direct = shape, chunk, direct
        ctx.last_logits = logits if any(ctx.needs_input_grad) else None
        return picked - normaliser

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, normaliser = ctx.saved_tensors
        shape, count = ctx.shape, len(targets)
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        # With one worker the gradient's own place is given, and nothing is returned for autograd to add to it.
        grad_weight = torch.zeros_like(weight) if wants_weight and ctx.direct is None else None
        total = grad_of(ctx.direct) if ctx.direct is not None else grad_weight
        grad_bias = torch.zeros_like(bias) if wants_bias else None
        logits, ctx.last_logits = ctx.last_logits, None  # None in a second backward pass over the same graph
        for start in reversed(range(0, count, ctx.chunk)):
            part = slice(start, start + ctx.chunk)
            if logits is None:
                logits = _logits(hidden[part], weight, bias, shape)
            target, factor = targets[part], grad[part, None].to(hidden.dtype)
            slope = shape.slope(logits)
            p = logits.sub_(normaliser[part, None]).exp_()
            if slope is None:
                at_target = factor * shape.logit_scale
                factor = at_target
            else:
                at_target = factor * slope.gather(1, target[:, None]).to(hidden.dtype)
                p = p.mul_(slope)
            p = p.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = at_target * weight[target] - factor * times_transposed(p, weight.t())
            if total is not None:
                subtract_product(total, p, factor * hidden[part])
                total.index_add_(0, target, at_target * hidden[part])
            if grad_bias is not None:
                grad_bias.sub_((p.t() @ factor).squeeze(1))
                grad_bias.index_add_(0, target, at_target.squeeze(1))
            logits = p = slope = None
        return grad_hidden, grad_weight, grad_bias, None, None, None, None


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, shape: HeadShape) -> Tensor:
    """The logits of some tokens, float32."""
    raw = times_transposed(hidden, weight) if bias is None else F.linear(hidden, weight, bias)
    return shape.apply_(raw.float())


class LogProbModel(nn.Module):
    """A causal language model that answers with log-probs of completions instead of logits.

    `packed` says whether micro-batches come packed (see `MicroBatch`); `full_logits` is the slow way for families whose
    path from hidden states to logits is not known here: the model computes its logits itself.
    """

    def __init__(self, causal: nn.Module, *, packed: bool = True, full_logits: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.packed, self.full_logits, self.adds_gradients = packed, full_logits, False
        self.head_shape = HeadShape.of(self.language_model.config.get_text_config())
        # FSDP wraps by these names; they live on the language model.
        self._no_split_modules = getattr(self.language_model, "_no_split_modules", None)
        use_fast_linear(causal)
        if packed:
            use_packed_attention(self.language_model)
        else:
            use_own_attention(self.language_model)

    @property
    def language_model(self) -> Any:
        """The transformers model, under the adapter if there is one."""
        causal: Any = self.causal
        return causal.get_base_model() if hasattr(causal, "get_base_model") else causal

    @property
    def config(self) -> Any:
        return self.language_model.config

    def add_gradients_directly(self) -> None:
        """For one worker alone: gradients of vocabulary-sized weights are added to `.grad` without a dense copy."""
        self.adds_gradients = True
        use_direct_embedding(self.causal)

    def hand_back(self) -> Any:
        """The model as transformers made it, with its own attention and layers, to be saved or sampled from."""
        use_plain_linear(self.causal)
        use_plain_embedding(self.causal)
        use_own_attention(self.language_model)
        return self.causal

    def tie_weights(self) -> None:
        self.language_model.tie_weights()

    def forward(self, batch: MicroBatch) -> Tensor:
        """Summed log-probs of the completions, [sequences], float32."""
        token_logps = self.token_logps(batch)
        return torch.segment_reduce(token_logps, "sum", lengths=batch.lengths, unsafe=True)

    def token_logps(self, batch: MicroBatch) -> Tensor:
        """Log-prob of every completion token, [completion tokens], float32."""
        inputs: dict[str, Any] = {
            "input_ids": batch.input_ids,
            "position_ids": batch.position_ids,
            "use_cache": False,
        }
        if batch.cumulative is not None:
            # The names transformers passes on to attention functions for packed rows.
            inputs |= {"cu_seq_lens_q": batch.cumulative, "cu_seq_lens_k": batch.cumulative}
        if self.full_logits:
            logits = self.language_model(**inputs).logits
            return self._gather(logits.reshape(-1, logits.shape[-1])[batch.picks], batch.targets)
        hidden = self.language_model.base_model(**inputs).last_hidden_state
        hidden = hidden.reshape(-1, hidden.shape[-1])[batch.picks]
        if self.head_shape.hidden_scale != 1.0:
            hidden = hidden * self.head_shape.hidden_scale
        return self._project(hidden, batch.targets)

    def _project(self, hidden: Tensor, targets: Tensor) -> Tensor:
        head = self.language_model.get_output_embeddings()
        vocabulary = self.config.get_text_config().vocab_size
        chunk = max(16, _CHUNK_BYTES // (4 * vocabulary))
        if type(head) in (nn.Linear, FastLinear):
            weight: Tensor = head.weight
            direct = head.weight if self.adds_gradients and weight.requires_grad and weight.is_leaf else None
            bias: Tensor | None = head.bias
            hidden = hidden.to(weight.dtype)
            if torch.is_autocast_enabled(hidden.device.type):
                dtype = torch.get_autocast_dtype(hidden.device.type)
                hidden, weight, direct = hidden.to(dtype), weight.to(dtype), None
                bias = bias.to(dtype) if bias is not None else None
            result: Tensor = _TokenLogps.apply(hidden, weight, bias, targets, self.head_shape, chunk, direct)
            return result

        # An adapted head, or one of an unknown class, computes itself: a chunk at a time, again in the backward pass.
        def one(part: Tensor, goal: Tensor) -> Tensor:
            return self._gather(self.head_shape.apply(head(part)), goal)

        return torch.cat(
            [
                checkpoint(one, h, t, use_reentrant=False, preserve_rng_state=False)
                for h, t in zip(hidden.split(chunk), targets.split(chunk))
            ]
        )

    @staticmethod
    def _gather(logits: Tensor, targets: Tensor) -> Tensor:
        return torch.log_softmax(logits.float(), dim=-1).gather(1, targets[:, None]).squeeze(1)


def wrap(causal: nn.Module, *, prefer_packed: bool) -> tuple[LogProbModel, str | None]:
    """The log-prob model in the fastest layout that gives this family's own numbers, and a line when it had to yield.

    A few random tokens go through the plain model one sequence at a time and through the wrapped one together; a layout
    or a head that does not agree is not used.
    """
    plain = LogProbModel(causal, packed=False, full_logits=True)
    sequences = _probe_sequences(plain.config)
    with torch.no_grad():
        wanted = torch.cat([plain(collate([s], packed=False).to(_device(causal))) for s in sequences])
    family = type(plain.language_model).__name__
    tried: list[tuple[bool, bool]] = [(False, False), (False, True)]
    if prefer_packed:
        tried.insert(0, (True, False))
    for packed, full_logits in tried:
        try:
            model = LogProbModel(causal, packed=packed, full_logits=full_logits)
        except ValueError:  # the family's attention is not exchangeable
            continue
        if _agrees(model, sequences, wanted):
            line = None
            if full_logits:
                line = f"{family}: its way from hidden states to logits is unknown here, so full logits are computed"
            elif prefer_packed and not packed:
                line = f"{family}: its attention cannot take packed rows, so rows are padded"
            return model, line
    raise RuntimeError(f"{family} gives other log-probs in a padded batch than one sequence at a time")


def _agrees(model: LogProbModel, sequences: list[tuple[np.ndarray, np.ndarray]], wanted: Tensor) -> bool:
    with torch.no_grad():
        try:
            got = model(collate(sequences, packed=model.packed).to(wanted.device))
        except (TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError, KeyError):
            return False
    low_precision = next(model.parameters()).dtype in (torch.bfloat16, torch.float16)
    return bool(torch.allclose(got, wanted, rtol=2e-2 if low_precision else 1e-4, atol=5e-2 if low_precision else 1e-3))


def _probe_sequences(config: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(0)
    vocabulary = config.get_text_config().vocab_size
    # Past a sliding window where it is short enough to probe; long ones are met by the same code.
    window = getattr(config.get_text_config(), "sliding_window", None) or 0
    longest = min(max(24, window + 8), 96)
    sizes = [(longest - 6, 6), (5, 4), (9, 7)]
    return [(generator.integers(0, vocabulary, p), generator.integers(0, vocabulary, c)) for p, c in sizes]


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
