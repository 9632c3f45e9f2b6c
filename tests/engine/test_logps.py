"""Log-probs of completions: every layout and every way equals one sequence at a time in plain transformers, float64."""

import copy

import pytest
import torch
from families import FAMILIES, PADDED_ONLY, VOCABULARY, make, oracle, sequences
from torch.utils._python_dispatch import TorchDispatchMode

from likewise.engine import logps as module
from likewise.engine.logps import LogProbModel, collate, wrap

WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 3.0])


def _scores(model, rows, weights=None):
    values = model(collate(rows, packed=model.packed))
    if weights is not None:
        model.zero_grad(set_to_none=True)
        (values * weights).sum().backward()
    return values.detach(), {n: p.grad for n, p in model.causal.named_parameters() if p.grad is not None}


def _assert_equal(got, wanted, tolerance=1e-5):
    torch.testing.assert_close(got[0].double(), wanted[0], rtol=tolerance, atol=1e-5)
    assert set(got[1]) == set(wanted[1])
    for name, gradient in wanted[1].items():
        error = (got[1][name].double() - gradient).abs().max()
        assert error <= 1e-4 * gradient.abs().max() + 1e-6, name


@pytest.mark.parametrize("name", FAMILIES)
def test_packed_padded_and_full_logits_equal_plain_transformers_in_value_and_gradient(name, monkeypatch):
    model, rows = make(name), sequences()
    wanted = oracle(model, rows, WEIGHTS.double())
    monkeypatch.setattr(module, "_CHUNK_BYTES", 4 * VOCABULARY * 16)  # 21 completion tokens: two chunks
    for packed, full in ((True, False), (False, False), (False, True)):
        way = LogProbModel(copy.deepcopy(model), packed=packed, full_logits=full)
        _assert_equal(_scores(way, rows, WEIGHTS), wanted)


@pytest.mark.parametrize("name", FAMILIES)
def test_known_families_take_packed_rows_without_full_logits(name):
    wrapped, line = wrap(make(name), prefer_packed=True)
    assert (wrapped.packed, wrapped.full_logits, line) == (True, False, None)


@pytest.mark.parametrize("name", PADDED_ONLY)
def test_families_that_cannot_pack_are_padded_and_say_so(name):
    model, rows = make(name), sequences()
    wanted = oracle(model, rows, WEIGHTS.double())
    wrapped, line = wrap(model, prefer_packed=True)
    assert not wrapped.packed
    assert line is not None
    assert "padded" in line
    _assert_equal(_scores(wrapped, rows, WEIGHTS), wanted)


def test_the_families_differ_from_a_plain_head_or_full_attention():
    """Otherwise the tests above would pass with caps, scales and windows ignored."""
    rows = sequences()
    for name, attribute in (
        ("gemma2", "final_logit_softcapping"),
        ("gemma2", "attn_logit_softcapping"),
        ("gemma2", "sliding_window"),
        ("cohere-logit-scale", "logit_scale"),
        ("granite-logits-scaling", "logits_scaling"),
        ("mistral-window", "sliding_window"),
    ):
        model = make(name)
        plain = oracle(model, rows)[0]
        config = copy.deepcopy(model.config)
        setattr(config, attribute, {"logit_scale": 1.0, "logits_scaling": 1.0, "sliding_window": 64}.get(attribute))
        if attribute == "attn_logit_softcapping":
            config.attn_logit_softcapping = 1e6
        other = type(model)(config)
        other.load_state_dict(model.state_dict())
        assert (oracle(other.eval(), rows)[0] - plain).abs().max() > 1e-2, (name, attribute)


def test_a_head_of_an_unknown_way_to_logits_falls_back_to_full_logits():
    class Odd(type(make("llama"))):
        def forward(self, *args, **options):
            output = super().forward(*args, **options)
            output.logits = output.logits * 1.7 + torch.linspace(0, 1, VOCABULARY)
            return output

    model = make("llama")
    model.__class__ = Odd
    rows = sequences()
    wrapped, line = wrap(model, prefer_packed=True)
    assert wrapped.full_logits
    assert "full logits" in line
    with torch.no_grad():
        single = []
        for p, c in rows:
            ids = torch.tensor([[*p, *c]])
            lp = torch.log_softmax(model(input_ids=ids).logits[0, :-1].double(), -1)
            single.append(lp.gather(1, ids[0, 1:, None])[len(p) - 1 :].sum())
        torch.testing.assert_close(_scores(wrapped, rows)[0].double(), torch.stack(single), rtol=1e-5, atol=1e-4)


def test_an_adapted_head_goes_through_the_module_and_stays_exact(monkeypatch):
    from peft import LoraConfig, get_peft_model

    base, rows = make("llama"), sequences()
    config = LoraConfig(r=3, target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM", init_lora_weights=False)
    torch.manual_seed(1)
    adapted = get_peft_model(base, config).eval()
    wanted = oracle(adapted, rows, WEIGHTS.double())
    assert any("lm_head.lora_A" in name for name in wanted[1])
    monkeypatch.setattr(module, "_CHUNK_BYTES", 4 * VOCABULARY * 16)
    wrapped, line = wrap(adapted, prefer_packed=True)
    assert (wrapped.packed, wrapped.full_logits, line) == (True, False, None)
    _assert_equal(_scores(wrapped, rows, WEIGHTS), wanted)


@pytest.mark.parametrize("chunk", [16, 17, 10_000])
def test_chunk_boundaries_leave_no_trace(chunk, monkeypatch):
    model = make("gemma2")
    rows = sequences(((4, 16), (2, 16), (3, 1), (5, 33)))
    wanted = oracle(model, rows, WEIGHTS.double())
    monkeypatch.setattr(module, "_CHUNK_BYTES", 4 * VOCABULARY * chunk)
    _assert_equal(_scores(LogProbModel(model), rows, WEIGHTS), wanted)


class _Largest(TorchDispatchMode):
    """The most rows that any tensor with a vocabulary dimension had."""

    rows = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if not isinstance(tensor, torch.Tensor) or tensor.ndim < 2 or tensor.shape[-1] != VOCABULARY:
                continue
            if tensor.shape != (32, VOCABULARY):  # the head's weight, transposed
                self.rows = max(self.rows, tensor.numel() // VOCABULARY)
        return result


@pytest.mark.parametrize("lora_head", [False, True])
def test_no_more_than_one_chunk_of_logits_exists_in_either_direction(lora_head, monkeypatch):
    from peft import LoraConfig, get_peft_model

    model = make("llama")
    if lora_head:
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["lm_head"], task_type="CAUSAL_LM"))
    wrapped = LogProbModel(model)
    monkeypatch.setattr(module, "_CHUNK_BYTES", 4 * VOCABULARY * 16)
    rows = sequences(((3, 70), (4, 80)))  # 150 completion tokens
    with _Largest() as largest:
        wrapped(collate(rows, packed=True)).sum().backward()
    assert largest.rows == 16


def test_prompt_tokens_are_never_projected():
    """The head sees completion tokens alone, however long the prompt."""
    wrapped, rows = LogProbModel(make("llama")), sequences(((90, 3), (80, 2)))
    with _Largest() as largest, torch.no_grad():
        wrapped(collate(rows, packed=True))
    assert largest.rows == 5


def test_one_sequence_does_not_see_its_neighbour_in_a_packed_row():
    wrapped = LogProbModel(make("llama"))
    rows = sequences()
    other = [rows[0], ((rows[1][0] + 1) % VOCABULARY, rows[1][1]), *rows[2:]]
    before, after = (_scores(wrapped, r)[0] for r in (rows, other))
    same = before == after
    assert same.tolist() == [True, False, True, True]


@pytest.mark.parametrize("packed", [True, False])
def test_the_layout_by_hand(packed):
    import numpy as np

    rows = [(np.array([11, 12]), np.array([13])), (np.array([21]), np.array([22, 23, 24]))]
    batch = collate(rows, packed=packed, pad_token=9)
    assert batch.lengths.tolist() == [1, 3]
    assert batch.targets.tolist() == [13, 22, 23, 24]
    if packed:
        assert batch.input_ids.tolist() == [[11, 12, 13, 21, 22, 23, 24]]
        assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 2, 3]]
        assert batch.cumulative.tolist() == [0, 3, 7]
        assert batch.picks.tolist() == [1, 3, 4, 5]
    else:
        assert batch.input_ids.tolist() == [[11, 12, 13, 9], [21, 22, 23, 24]]
        assert batch.cumulative is None
        assert batch.picks.tolist() == [1, 4, 5, 6]


def test_packed_attention_is_taken_back_for_generation():
    from likewise.engine.attention import PACKED, use_own_attention

    model = make("llama")
    own = model.config._attn_implementation
    LogProbModel(model)
    assert model.config._attn_implementation == PACKED
    use_own_attention(model)
    assert model.config._attn_implementation == own
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, make("llama")(input_ids=ids).logits)


def test_bfloat16_is_near_float32():
    model, rows = make("llama"), sequences()
    wanted = oracle(model, rows)[0]
    got = _scores(wrap(model.to(torch.bfloat16), prefer_packed=True)[0], rows)[0]
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), wanted, rtol=3e-2, atol=0.3)
