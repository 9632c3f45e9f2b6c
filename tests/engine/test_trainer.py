"""The trainer: what a step does, what it logs, and when it stops."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import metrics_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from likewise.data.read import read_feedback
from likewise.data.tokens import tokenize_feedback
from likewise.engine.config import AlignConfig
from likewise.engine.plan import Schedule, draw_mismatched
from likewise.engine.reference import default_cache_dir
from likewise.engine.trainer import learning_rate_at
from likewise.errors import BadFeedback, TrainingDiverged

COMMON = {
    "step", "epoch", "loss", "learning_rate", "grad_norm", "examples", "tokens", "seconds", "examples_per_second",
    "tokens_per_second", "peak_memory_bytes", "reward/margin", "log_ratio/mean",
}  # fmt: skip


def _reference_logps() -> np.ndarray:
    (path,) = (default_cache_dir() / "reference").glob("*")
    with safe_open(path, "np") as file:
        return file.get_tensor("logps")


# -- what is logged ---------------------------------------------------------------------------------------------------


def test_a_label_run_logs_the_keys_of_the_contract(align, thumbs):
    run = align(thumbs(24))
    keys = COMMON | {"reward/desirable", "reward/undesirable"}
    keys |= {"objective/shift", "objective/error_term", "objective/bound_gap"}
    for entry in metrics_of(run.folder):
        assert keys <= set(entry)
        assert all(math.isfinite(v) for v in entry.values())


def test_a_pair_run_logs_the_keys_of_the_contract(align, pairs):
    run = align(pairs(16), "dpo")
    for entry in metrics_of(run.folder):
        assert COMMON | {"reward/chosen", "reward/rejected", "objective/accuracy"} <= set(entry)


def test_kto_logs_its_baseline_before_and_after_the_clamp_with_its_error(align, thumbs):
    for entry in metrics_of(align(thumbs(24), "kto").folder):
        assert {"objective/baseline", "objective/baseline_raw", "objective/baseline_stderr"} <= set(entry)
        assert entry["objective/baseline"] == max(0.0, entry["objective/baseline_raw"])


def test_counts_and_rewards_of_a_step_by_hand(align, thumbs, tiny_tokenizer):
    """Every example is visited in an epoch, so tokens and examples add up; rewards are 0 before the first update."""
    rows = thumbs(21)
    run = align(rows)
    tokens = tokenize_feedback(read_feedback(rows), tiny_tokenizer)
    assert [m["examples"] for m in run.metrics] == [8, 8, 5]
    assert sum(m["tokens"] for m in run.metrics) == (tokens.prompt_lengths + tokens.completion_lengths).sum()
    assert [m["epoch"] for m in run.metrics] == pytest.approx([1 / 3, 2 / 3, 1], abs=1e-6)
    assert run.metrics[0]["log_ratio/mean"] == pytest.approx(0, abs=1e-4)
    assert run.metrics[0]["loss"] == pytest.approx(math.log(2), rel=1e-5)


def test_rewards_of_the_second_step_are_beta_times_the_log_ratio_of_the_saved_model(align, thumbs, tiny_tokenizer):
    """A run of one step leaves the policy that the second step of the same run is measured with."""
    from families import oracle
    from transformers import AutoModelForCausalLM

    rows = thumbs(16)
    options = {"schedule": "constant", "warmup": 0.0, "learning_rate": 5e-3, "beta": 0.25}
    two = align(rows, **options)
    one = align(rows, max_steps=1, **options)
    tokens = tokenize_feedback(read_feedback(rows), tiny_tokenizer)
    examples = Schedule(np.arange(16), 8, 1.0, 0).examples(1)
    table = [(tokens.prompts[tokens.prompt_of[e]], tokens.completions[e]) for e in examples]
    policy, _ = oracle(AutoModelForCausalLM.from_pretrained(one.folder), table)
    ratio = policy.numpy() - _reference_logps()[examples]
    up = tokens.label[examples] > 0.5
    got = two.metrics[1]
    assert got["log_ratio/mean"] == pytest.approx(ratio.mean(), rel=1e-3, abs=1e-4)
    assert got["reward/desirable"] == pytest.approx(0.25 * ratio[up].mean(), rel=1e-3, abs=1e-4)
    assert got["reward/undesirable"] == pytest.approx(0.25 * ratio[~up].mean(), rel=1e-3, abs=1e-4)
    assert got["reward/margin"] == pytest.approx(got["reward/desirable"] - got["reward/undesirable"])
    # BCO, Eq. 8: δ is 0 (all rewards of step 1 were), classes weigh N/2N_c over the whole data set.
    labels = tokens.label
    weight = np.where(up, 16 / (2 * labels.sum()), 16 / (2 * (1 - labels).sum()))
    losses = np.logaddexp(0, np.where(up, -1, 1) * 0.25 * ratio)
    assert got["objective/shift"] == pytest.approx(0, abs=1e-5)
    assert got["loss"] == pytest.approx((weight * losses).sum() / weight.sum(), rel=1e-4)


def test_the_shift_is_frozen_in_a_step_and_moves_after_it(align, thumbs):
    """δ of step t+1 is made of the class means of steps up to t, by hand from the logged means."""
    run = align(thumbs(48), learning_rate=5e-3, batch_size=8, shift_rate=0.4)
    means = {"desirable": None, "undesirable": None}
    for entry in run.metrics:
        wanted = sum(m or 0.0 for m in means.values()) / 2
        assert entry["objective/shift"] == pytest.approx(wanted, abs=1e-9)
        for name in means:
            seen = entry.get(f"objective/{name}_reward")
            if seen is not None:
                means[name] = seen if means[name] is None else means[name] + 0.4 * (seen - means[name])
    assert abs(run.metrics[-1]["objective/shift"]) > 1e-4


def test_the_baseline_is_the_mean_over_the_whole_step_clamped_afterwards(align, thumbs, tiny_tokenizer):
    """Mismatched completions of step 2 under the policy that step 1 left, scored one by one in plain transformers."""
    from families import oracle
    from transformers import AutoModelForCausalLM

    rows = thumbs(16)
    options = {"schedule": "constant", "warmup": 0.0, "learning_rate": 5e-3, "tokens_per_microbatch": 60}
    two, one = align(rows, "kto", **options), align(rows, "kto", max_steps=1, **options)
    tokens = tokenize_feedback(read_feedback(rows), tiny_tokenizer)
    examples = Schedule(np.arange(16), 8, 1.0, 0).examples(1)
    answers = [c.tobytes() for c in tokens.completions]
    others = draw_mismatched(examples, tokens.example_prompt, answers, 0, 1)
    assert (others >= 0).all()
    table = [(tokens.prompts[tokens.prompt_of[e]], tokens.completions[o]) for e, o in zip(examples, others)]
    from_step_one, _ = oracle(AutoModelForCausalLM.from_pretrained(one.folder), table)
    start, _ = oracle(AutoModelForCausalLM.from_pretrained(one.result.tokenizer.name_or_path), table)
    ratio = (from_step_one - start).numpy()
    got = two.metrics[1]
    assert got["objective/baseline_raw"] == pytest.approx(ratio.mean(), rel=1e-3, abs=2e-4)
    assert got["objective/baseline"] == pytest.approx(max(0.0, ratio.mean()), rel=1e-3, abs=2e-4)
    assert got["objective/baseline_stderr"] == pytest.approx(ratio.std(ddof=1) / math.sqrt(8), rel=1e-3, abs=2e-4)


def test_lines_are_logged_as_often_as_asked_and_the_last_one_always(align, thumbs):
    run = align(thumbs(56), log_every=3)
    assert [m["step"] for m in metrics_of(run.folder)] == [3, 6, 7]


# -- the learning rate ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        # Ten steps, two of warm-up: a third, two thirds, then full and down over eight steps.
        ("linear", [1 / 3, 2 / 3, *(1 - i / 8 for i in range(8))]),
        ("constant", [1 / 3, 2 / 3] + [1.0] * 8),
        ("cosine", [1 / 3, 2 / 3, *((1 + math.cos(math.pi * i / 8)) / 2 for i in range(8))]),
    ],
)
def test_learning_rates_by_hand(schedule, wanted, align, thumbs):
    config = AlignConfig(model="m", feedback="f", schedule=schedule, warmup=0.2)
    assert [learning_rate_at(s, 10, config) for s in range(10)] == pytest.approx(wanted)
    run = align(thumbs(20), batch_size=2, schedule=schedule, warmup=0.2, learning_rate=4e-3)
    assert [m["learning_rate"] for m in run.metrics] == pytest.approx([4e-3 * w for w in wanted])


def test_a_first_step_is_never_without_effect(align, thumbs, tiny_model):
    """A schedule that starts or ends at 0 would waste a step: a run of one step must change the weights."""
    run = align(thumbs(8), max_steps=1)
    before = load_file(tiny_model / "model.safetensors")
    assert any((run.weights[k] != before[k]).any() for k in before)


# -- weights of rows and classes --------------------------------------------------------------------------------------


def test_a_row_of_weight_two_counts_as_two_rows(align, thumbs):
    """One step: the row twice, or once with weight 2, gives the same loss, gradient and weights."""
    rows = thumbs(9)
    twice = align([*rows, rows[4]], batch_size=100)
    once = align([*rows[:4], {**rows[4], "weight": 2.0}, *rows[5:]], batch_size=100)
    assert once.losses == pytest.approx(twice.losses, rel=1e-5)
    assert once.metrics[0]["grad_norm"] == pytest.approx(twice.metrics[0]["grad_norm"], rel=1e-4)


def test_class_weights_level_the_gradient_of_both_classes(align, thumbs):
    """At step 1 every loss has slope ∓½ in its reward, so levelled classes with equal answers would cancel: here a
    skewed set weighted by class gives the gradient of a level one that shows the rare class four times."""
    ups, downs = [r for r in thumbs(200) if r["label"]][:8], [r for r in thumbs(200) if not r["label"]][:2]
    weighted = align([*ups, *downs], batch_size=100)
    shown = align([*ups, *downs * 4], batch_size=100, class_balance="none")
    assert "weighted 0.625 and 2.5" in weighted.printed
    assert weighted.metrics[0]["grad_norm"] == pytest.approx(shown.metrics[0]["grad_norm"], rel=1e-4)
    oversampled = align([*ups, *downs], batch_size=100, class_balance="oversample")
    assert oversampled.metrics[0]["examples"] == 16
    assert oversampled.metrics[0]["grad_norm"] == pytest.approx(shown.metrics[0]["grad_norm"], rel=1e-4)


@pytest.mark.parametrize("objective", ["bco", "kto"])
def test_one_class_alone_is_explained_and_may_be_allowed(align, thumbs, objective):
    ups = [r for r in thumbs(40) if r["label"]]
    with pytest.raises(BadFeedback, match=r"all \d+ labels are thumbs up(.|\n)*--allow-one-class"):
        align(ups, objective)
    run = align(ups, objective, allow_one_class=True)
    assert all(math.isfinite(loss) for loss in run.losses)


# -- when it stops ----------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_names_step_and_rows_and_keeps_the_checkpoint(align, thumbs, tmp_path, write_jsonl):
    rows = thumbs(24)
    rows.insert(2, {"prompt": "", "completion": "x", "label": True})  # a bad row, so that positions shift by one
    path = write_jsonl(rows)
    out = tmp_path / "out"
    config = {"learning_rate": 1e30, "warmup": 0.0, "checkpoint_every": 1, "output_dir": out, "batch_size": 4}
    with pytest.raises(TrainingDiverged, match=r"step 2: .* not finite(.|\n)*step-1") as caught:
        align(path, skip_bad_rows=True, shuffle=False, **config)
    # Unshuffled, step 2 holds lines 6, 7, 8 and 9 of the file, the third line being left out.
    assert "6, 7, 8, 9" in str(caught.value)
    assert str(path) in str(caught.value)
    checkpoint = out / "checkpoints" / "step-1"
    assert {p.name for p in checkpoint.iterdir()} == {
        "model.safetensors", "optimizer.safetensors", "state.safetensors", "run.json",
    }  # fmt: skip
    assert load_file(checkpoint / "model.safetensors")
    assert [m["step"] for m in metrics_of(out)] == [1]
    assert not (out / "model.safetensors").exists()


def test_the_row_whose_log_prob_is_not_finite_is_named_alone(align, thumbs, tiny_model, tmp_path, tiny_tokenizer):
    """A broken embedding of one letter: only rows with that letter are to blame."""
    import shutil

    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    (letter,) = tiny_tokenizer("Z", add_special_tokens=False)["input_ids"]
    weights["model.embed_tokens.weight"][letter] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    rows = thumbs(16)
    rows[11]["completion"] = "yes Z b"
    with pytest.raises(TrainingDiverged, match=r"step \d: .*Rows of that step in .*: 12\."):
        align(rows, model=broken)


def test_a_model_that_computes_at_random_is_found_out_at_the_first_step(align, thumbs, tiny_model, tiny_tokenizer):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    generator = torch.Generator().manual_seed(0)

    def noise(_, __, output):
        return output + 0.5 * torch.randn(output.shape, generator=generator)

    model.model.embed_tokens.register_forward_hook(noise)
    with pytest.raises((TrainingDiverged, RuntimeError), match=r"at random|other log-probs"):
        align(thumbs(16), model=model, tokenizer=tiny_tokenizer)


def test_dropout_is_off_so_the_first_loss_is_exact(align, thumbs, tmp_path, tiny_tokenizer):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tiny_tokenizer), n_embd=32, n_layer=1, n_head=2, attn_pdrop=0.5, resid_pdrop=0.5)
    ).save_pretrained(tmp_path / "gpt2")
    tiny_tokenizer.save_pretrained(tmp_path / "gpt2")
    for options in ({}, {"gradient_checkpointing": True}):
        run = align(thumbs(16), model=tmp_path / "gpt2", **options)
        assert run.losses[0] == pytest.approx(math.log(2), rel=1e-5)


# -- precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"lora_rank": 4, "learning_rate": 1e-2}])
def test_bfloat16_trains_near_float32(align, thumbs, options):
    exact, rough = align(thumbs(40), **options), align(thumbs(40), dtype="bfloat16", **options)
    assert rough.losses[0] == pytest.approx(math.log(2), rel=2e-2)
    assert rough.losses == pytest.approx(exact.losses, rel=0.12)
    saved = {t.dtype for t in rough.weights.values()}
    assert saved == {torch.float32}  # all weights are kept in float32, and so is an adapter


@pytest.mark.slow
def test_it_learns(align, thumbs, tmp_path: Path):
    """Liked answers begin with "yes", disliked with "no": a few epochs tell held-out ones apart."""
    run = align(thumbs(160), epochs=4, learning_rate=5e-3, holdout=0.25)
    assert run.result.heldout.estimate.value > 0.9
    assert run.metrics[-1]["reward/margin"] > 0.5
    assert np.mean(run.losses[-5:]) < 0.5


# -- gradients --------------------------------------------------------------------------------------------------------


def _first_gradient(rows, model_folder, tokenizer) -> dict[str, torch.Tensor]:
    """Of BCO's mean loss before any update, in plain transformers and float64: slope ∓β/2 in each log-prob."""
    from families import oracle
    from transformers import AutoModelForCausalLM

    tokens = tokenize_feedback(read_feedback(rows), tokenizer)
    up = tokens.label > 0.5
    weight = np.where(up, len(up) / (2 * up.sum()), len(up) / (2 * (~up).sum()))
    slope = np.where(up, -0.05, 0.05) * weight / weight.sum()
    table = [(tokens.prompts[p], tokens.completions[i]) for i, p in enumerate(tokens.prompt_of)]
    return oracle(AutoModelForCausalLM.from_pretrained(model_folder), table, torch.from_numpy(slope))[1]


def test_the_gradient_of_a_step_is_that_of_the_weighted_mean_loss(align, thumbs, tiny_model, tiny_tokenizer):
    rows = thumbs(12, up=0.7)
    gradient = _first_gradient(rows, tiny_model, tiny_tokenizer)
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradient.values()))
    run = align(rows, batch_size=100, tokens_per_microbatch=80)
    assert run.metrics[0]["grad_norm"] == pytest.approx(norm, rel=1e-4)


def test_gradients_are_clipped_and_adam_takes_its_step(align, thumbs, tiny_model, tiny_tokenizer):
    """Adam's first step is lr·g/(|g| + 1e-8), so only a very small norm shows that clipping was done."""
    rows, limit = thumbs(12), 1e-8
    gradient = _first_gradient(rows, tiny_model, tiny_tokenizer)
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradient.values()))
    run = align(rows, batch_size=100, max_grad_norm=limit, warmup=0.0, schedule="constant", learning_rate=1e-2)
    before, after = load_file(tiny_model / "model.safetensors"), run.weights
    assert norm > 1e-3
    for name, g in gradient.items():
        clipped = g * (limit / norm)
        wanted = -1e-2 * clipped / (clipped.abs() + 1e-8)
        torch.testing.assert_close(after[name].double() - before[name].double(), wanted, rtol=1e-2, atol=1e-6)


def test_a_negative_baseline_is_clamped_to_zero(align, thumbs):
    """Thumbs down alone make everything less likely, mismatched completions too."""
    downs = [{**row, "label": False} for row in thumbs(24)]
    run = align(downs, "kto", allow_one_class=True, learning_rate=5e-3, warmup=0.0)
    last = run.metrics[-1]
    assert last["objective/baseline_raw"] < -0.1
    assert last["objective/baseline"] == 0.0


def test_a_mismatch_beyond_the_limit_of_tokens_is_left_out(tiny_tokenizer):
    from likewise.engine.sequences import Mismatched, Sequences

    rows = [
        {"prompt": "p" * 70, "completion": "short", "label": True},
        {"prompt": "q: ", "completion": "c" * 50, "label": False},
        {"prompt": "r: ", "completion": "other", "label": True},
    ]
    tokens = tokenize_feedback(read_feedback(rows), tiny_tokenizer, max_tokens=100, max_prompt_tokens=90)
    left_out = 0
    for seed in range(20):
        schedule = Schedule(np.arange(3), 3, 1.0, seed)
        drawn, table = Mismatched.draw(tokens, schedule, Sequences.of(tokens), 100)
        for example, number in zip(schedule.examples(0), drawn.by_step[0]):
            if number < 0:
                assert example == 0  # the only prompt that cannot take the long answer
                left_out += 1
                continue
            prompt, completion = table[int(number)]
            assert len(prompt) + len(completion) <= 100
            np.testing.assert_array_equal(prompt, tokens.prompts[tokens.prompt_of[example]])
            assert completion.tobytes() != tokens.completions[example].tobytes()
    assert 0 < left_out < 20
