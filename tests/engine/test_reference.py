"""The cache of reference log-probs: met again by the very same model and tokens alone, not believed when broken."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from families import oracle
from processes import metrics_of, run_workers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from likewise.data.read import read_feedback
from likewise.data.tokens import tokenize_feedback
from likewise.engine.reference import default_cache_dir


def _files() -> list[Path]:
    return sorted((default_cache_dir() / "reference").glob("*"))


def _read(path: Path) -> tuple[np.ndarray, dict]:
    with safe_open(path, "np") as file:
        return file.get_tensor("logps"), file.metadata()


def _changed_model(tiny_model: Path, folder: Path, amount: float = 1e-3) -> Path:
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] += amount
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_the_cache_holds_the_log_probs_of_the_model_before_training(align, thumbs, tiny_model, tiny_tokenizer):
    from transformers import AutoModelForCausalLM

    rows = thumbs(12)
    align(rows)
    (path,) = _files()
    tokens = tokenize_feedback(read_feedback(rows), tiny_tokenizer)
    table = [(tokens.prompts[p], tokens.completions[i]) for i, p in enumerate(tokens.prompt_of)]
    wanted, _ = oracle(AutoModelForCausalLM.from_pretrained(tiny_model), table)
    np.testing.assert_allclose(_read(path)[0], wanted.numpy(), rtol=1e-5)


def test_a_second_run_finds_it_and_says_so(align, thumbs):
    first, second = align(thumbs(20)), align(thumbs(20))
    assert "reference log-probs: 20 in" in first.printed
    assert "reference log-probs: 20 found in" in second.printed
    assert first.losses == second.losses
    assert len(_files()) == 1


@pytest.mark.parametrize("what", ["weights", "a config value", "template", "rows", "order", "limit", "dtype"])
def test_whatever_changes_the_numbers_has_a_cache_of_its_own(align, thumbs, tiny_model, tmp_path, what):
    rows, options = thumbs(20), {}
    align(rows)
    if what == "weights":
        options["model"] = _changed_model(tiny_model, tmp_path / "other")
    if what == "a config value":
        other = shutil.copytree(tiny_model, tmp_path / "other")
        text = (other / "config.json").read_text()
        assert '"rms_norm_eps": 1e-06' in text
        (other / "config.json").write_text(text.replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 0.1'))
        options["model"] = other
    if what == "template":
        options["chat_template"] = tmp_path / "t.jinja"
        old = (Path(tiny_model) / "chat_template.jinja").read_text()
        options["chat_template"].write_text(old.replace("{{ m['content'] }}", " {{ m['content'] }}"))
    if what == "rows":
        rows[7]["completion"] += "!"
    if what == "order":
        rows.reverse()
    if what == "limit":
        options |= {"max_prompt_tokens": 24}
    if what == "dtype":
        options["dtype"] = "bfloat16"
    changed = align(rows, **options)
    assert "found in" not in changed.printed
    assert changed.metrics[0]["loss"] == pytest.approx(np.log(2), rel=5e-2 if what == "dtype" else 1e-5)
    assert len(_files()) == 2


def test_labels_weights_and_objectives_share_one_cache(align, thumbs):
    rows = thumbs(20)
    align(rows)
    for row in rows:
        row["label"] = not row["label"]
    assert "20 found in" in align(rows, "bce", seed=5, beta=0.3, lora_rank=2).printed


@pytest.mark.parametrize("damage", ["truncated", "not safetensors", "empty", "other key", "other count"])
def test_a_broken_cache_is_found_out_and_made_again(align, thumbs, damage):
    first = align(thumbs(20))
    (path,) = _files()
    logps, metadata = _read(path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-9])
    if damage == "not safetensors":
        path.write_bytes(b"PK\x03\x04" + bytes(100))
    if damage == "empty":
        path.write_bytes(b"")
    if damage == "other key":
        save_file({"logps": torch.from_numpy(logps)}, path, metadata={"key": "another"})
    if damage == "other count":
        save_file({"logps": torch.from_numpy(logps[:-1].copy())}, path, metadata=metadata)
    second = align(thumbs(20))
    assert "it is made again" in second.printed
    assert second.losses == first.losses
    assert "20 found in" in align(thumbs(20)).printed


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_scored_again(align, thumbs, value):
    first = align(thumbs(20))
    (path,) = _files()
    logps, metadata = _read(path)
    logps[3] = value
    save_file({"logps": torch.from_numpy(logps)}, path, metadata=metadata)
    second = align(thumbs(20))
    assert "19 found in" in second.printed
    assert second.losses == pytest.approx(first.losses, rel=1e-6)


@pytest.mark.parametrize("objective", ["bco", "dpo", "nca"])
def test_finite_nonsense_is_found_out_at_the_first_step(align, thumbs, pairs, objective):
    """A shift that both sides of a pair share leaves DPO's loss as it should be; the log-ratios tell all the same."""
    from likewise.errors import TrainingDiverged

    rows = pairs(20) if objective in ("dpo", "nca") else thumbs(20)
    align(rows, objective)
    (path,) = _files()
    logps, metadata = _read(path)
    save_file({"logps": torch.from_numpy(logps + 5)}, path, metadata=metadata)
    with pytest.raises(TrainingDiverged, match=r"step 1(.|\n)*cache"):
        align(rows, objective)


def test_a_run_of_few_steps_scores_what_it_reads_and_a_longer_one_the_rest(align, thumbs):
    whole = align(thumbs(40), cache_dir=default_cache_dir() / "elsewhere")
    short = align(thumbs(40), max_steps=2, warmup=0, schedule="constant")
    assert "reference log-probs: 16 in" in short.printed
    rest = align(thumbs(40))
    assert "reference log-probs: 16 found in" in rest.printed
    assert "reference log-probs: 24 in" in rest.printed
    assert rest.losses == pytest.approx(whole.losses, rel=1e-6)


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(align, thumbs, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    run = align(thumbs(20), cache_dir=blocked / "cache")
    assert "could not be kept" in run.printed
    assert len(run.metrics) == 3


def test_an_adapter_s_reference_is_its_base_also_when_that_is_an_adapter(align, thumbs, tiny_model):
    """First an adapter on the tiny model, then one on that: the second is measured against the first, merged."""
    first = align(thumbs(20), lora_rank=2, learning_rate=2e-2, epochs=2)
    merged = align(thumbs(20), lora_rank=2, learning_rate=2e-2, epochs=2, merge=True)
    on_adapter = align(thumbs(20, seed=1), model=first.folder, lora_rank=2)
    on_merged = align(thumbs(20, seed=1), model=merged.folder, lora_rank=2)
    assert on_adapter.metrics[0]["loss"] == pytest.approx(np.log(2), rel=1e-5)
    assert on_adapter.losses == pytest.approx(on_merged.losses, rel=1e-5)
    on_base = align(thumbs(20, seed=1), lora_rank=2)
    assert on_base.losses[-1] != pytest.approx(on_adapter.losses[-1], rel=1e-5)


@pytest.mark.slow
def test_workers_with_caches_of_their_own_score_together_what_one_of_them_lacks(
    align, thumbs, write_jsonl, tiny_model, tmp_path
):
    """Two machines, of which one has run this before: neither may wait for the other."""
    feedback = write_jsonl(thumbs(20))
    alone = align(feedback)
    run = {"model": str(tiny_model), "feedback": str(feedback), "output_dir": str(tmp_path / "two")}
    run |= {"batch_size": 8, "learning_rate": 1e-3, "report_samples": 0, "checkpoint_every": 0}
    folders = [str(tmp_path / "bare"), str(default_cache_dir())]
    run_workers(tmp_path, [run], workers=2, cache_of_worker=folders)
    assert [m["loss"] for m in metrics_of(tmp_path / "two")] == pytest.approx(alone.losses, rel=1e-5)
