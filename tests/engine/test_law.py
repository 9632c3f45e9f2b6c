"""The law the trainer is built around: how a step is cut never changes the result beyond float rounding."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import SHARDED, free_port, metrics_of, run_workers
from safetensors.torch import load_file

# What is run each way. Four thumbs up for one down and six rows a step: many micro-batches, some workers and some
# whole steps hold one class alone.
RUNS = {
    "bco": {"objective": "bco", "batch_size": 6},
    "kto": {"objective": "kto", "batch_size": 6},
    "dpo": {"objective": "dpo", "batch_size": 6},
    "lora": {"objective": "bco", "batch_size": 6, "lora_rank": 4, "learning_rate": 1e-2},
}
CUTS = {
    "every sequence alone": {"tokens_per_microbatch": 1},
    "all at once": {"tokens_per_microbatch": 100_000},
    "padded": {"layout": "padded", "tokens_per_microbatch": 150},
    "checkpointed": {"gradient_checkpointing": True, "tokens_per_microbatch": 150},
}
_NOT_RESULTS = {"seconds", "examples_per_second", "tokens_per_second", "peak_memory_bytes"}


@pytest.fixture(scope="module")
def data(tmp_path_factory, tiny_model):
    """The feedback files, and each run done the plain way in this process."""
    import json

    import made_rows

    import likewise
    from likewise.engine.progress import Reporter

    folder = tmp_path_factory.mktemp("law")
    os.environ["LIKEWISE_CACHE"] = str(folder / "cache")
    for name, rows in (("thumbs", made_rows.thumbs(33, up=0.8)), ("pairs", made_rows.pairs(27))):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in RUNS:
        model, feedback, objective, config = _arguments(name, folder, tiny_model, folder / f"plain-{name}")
        likewise.align(model, feedback, objective, reporter=Reporter(quiet=True), **config)
    return folder


def _arguments(name: str, folder: Path, model: Path, out: Path, **more):
    config = {"learning_rate": 1e-3, "report_samples": 0, "holdout": 0.15, "checkpoint_every": 0, **RUNS[name], **more}
    objective = config.pop("objective")
    feedback = folder / ("pairs.jsonl" if objective == "dpo" else "thumbs.jsonl")
    config.setdefault("tokens_per_microbatch", 150)
    return str(model), str(feedback), objective, config | {"output_dir": str(out)}


def _spec(name: str, folder: Path, model: Path, out: Path, **more):
    m, f, o, config = _arguments(name, folder, model, out, **more)
    return {"model": m, "feedback": f, "objective": o, **config}


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    name = "adapter_model" if (folder / "adapter_model.safetensors").exists() else "model"
    return load_file(folder / f"{name}.safetensors")


def assert_same_run(got: Path, wanted: Path, start: dict[str, torch.Tensor] | None) -> None:
    """Same losses to 1e-5 relative, same metrics, and weights that differ by a trifle of what was learnt."""
    ours, theirs = metrics_of(got), metrics_of(wanted)
    assert len(ours) == len(theirs) > 3
    assert {m["step"] for m in ours} == set(range(1, len(ours) + 1))
    for a, b in zip(ours, theirs):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert set(a) == set(b)
        # Before the first update all margins are 0 but for rounding, which alone decides what is ahead.
        for key in set(a) - _NOT_RESULTS - ({"objective/accuracy"} if a["step"] == 1 else set()):
            assert a[key] == pytest.approx(b[key], rel=2e-4, abs=1e-5), key
    new, old = _weights(got), _weights(wanted)
    assert set(new) == set(old)
    difference = math.sqrt(sum(float((new[k].double() - old[k]).square().sum()) for k in old))
    learnt = math.sqrt(sum(float((old[k].double() - (start[k] if start else 0)).square().sum()) for k in old))
    assert difference <= 2e-3 * learnt


def _start(name: str, model: Path) -> dict[str, torch.Tensor] | None:
    return None if name == "lora" else load_file(model / "model.safetensors")


def test_the_data_hold_steps_and_micro_batches_of_one_class(data):
    bco = metrics_of(data / "plain-bco")
    assert any("reward/undesirable" not in m for m in bco)
    assert any("reward/undesirable" in m for m in bco)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("cut", CUTS)
def test_cutting_a_step_otherwise_changes_nothing(data, tiny_model, tmp_path, name, cut):
    import likewise
    from likewise.engine.progress import Reporter

    model, feedback, objective, config = _arguments(name, data, tiny_model, tmp_path / "out", **CUTS[cut])
    likewise.align(model, feedback, objective, reporter=Reporter(quiet=True), **config)
    assert_same_run(tmp_path / "out", data / f"plain-{name}", _start(name, tiny_model))


def _resumed(name: str, data: Path, model: Path, folder: Path) -> list[dict]:
    """A run with checkpoints, and the same one in another folder that was killed after step 2 and resumed."""
    more = {"checkpoint_every": 2, "keep_checkpoints": 9}
    whole = _spec(name, data, model, folder / f"whole-{name}", **more)
    again = _spec(name, data, model, folder / f"again-{name}", **more)
    return [whole, dict(again), dict(again, resume=True, killed_after=2)]


def assert_bit_identical(got: Path, wanted: Path) -> None:
    assert [m["loss"] for m in metrics_of(got)] == [m["loss"] for m in metrics_of(wanted)]
    new, old = _weights(got), _weights(wanted)
    assert set(new) == set(old)
    assert all(torch.equal(new[k], old[k]) for k in old)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["two workers", "two workers, sharded", "one worker of torchrun"])
def test_workers_change_nothing_and_resume_to_the_same_bits(data, tiny_model, tmp_path, how):
    runs = [_spec(name, data, tiny_model, tmp_path / name) for name in RUNS]
    runs += _resumed("bco", data, tiny_model, tmp_path) + _resumed("lora", data, tiny_model, tmp_path)
    runs.append(_spec("lora", data, tiny_model, tmp_path / "adapter", reference="adapter"))
    runs.append(_spec("lora", data, tiny_model, tmp_path / "merged", merge=True))
    run_workers(tmp_path, runs, workers=1 if how.startswith("one") else 2, env=SHARDED if "sharded" in how else {})
    for name in RUNS:
        assert_same_run(tmp_path / name, data / f"plain-{name}", _start(name, tiny_model))
    assert_same_run(tmp_path / "adapter", data / "plain-lora", None)
    assert_same_run(tmp_path / "whole-bco", data / "plain-bco", _start("bco", tiny_model))
    for name in ("bco", "lora"):
        assert_bit_identical(tmp_path / f"again-{name}", tmp_path / f"whole-{name}")
    _assert_merged(tmp_path / "merged", data / "plain-lora", tiny_model)


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True])
def test_accelerate_launch_starts_the_command_line_on_two_workers(data, tiny_model, tmp_path, sharded):
    _, feedback, _, config = _arguments("bco", data, tiny_model, tmp_path / "out")
    flags = [part for k, v in config.items() for part in (f"--{k.replace('_', '-')}", str(v))]
    how = ["--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *(how if sharded else ["--multi_gpu"])]
    command += ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", str(free_port()), "-m", "likewise.cli", "align"]
    done = subprocess.run(
        [*command, "--model", str(tiny_model), "--feedback", feedback, *flags],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "out", data / "plain-bco", _start("bco", tiny_model))
    # Only the first worker speaks, and says each thing once.
    assert done.stderr.count("likewise align: bco") == 1


def _assert_merged(merged: Path, adapter: Path, base: Path) -> None:
    """W + (alpha/rank)·B·A by hand: alpha is twice the rank by default."""
    weights, parts, before = _weights(merged), load_file(adapter / "adapter_model.safetensors"), _weights(base)
    changed = 0
    for name, weight in weights.items():
        key = f"base_model.model.{name.removesuffix('.weight')}"
        wanted = before[name]
        if f"{key}.lora_A.weight" in parts:
            wanted = wanted + 2 * parts[f"{key}.lora_B.weight"] @ parts[f"{key}.lora_A.weight"]
            changed += 1
        torch.testing.assert_close(weight, wanted, rtol=1e-4, atol=1e-5)
    assert changed == 14  # seven linear layers in each of two blocks


@pytest.mark.parametrize("name", ["bco", "kto", "dpo"])
def test_a_live_reference_gives_the_numbers_of_a_cached_one(data, tiny_model, tmp_path, name):
    import likewise
    from likewise.engine.progress import Reporter

    model, feedback, objective, config = _arguments(name, data, tiny_model, tmp_path / "out", reference="live")
    likewise.align(model, feedback, objective, reporter=Reporter(quiet=True), **config)
    assert_same_run(tmp_path / "out", data / f"plain-{name}", _start(name, tiny_model))


@pytest.mark.parametrize("reference", ["adapter", "live"])
def test_an_adapter_measures_itself_against_its_base_in_every_mode(data, tiny_model, tmp_path, reference):
    import likewise
    from likewise.engine.progress import Reporter

    model, feedback, objective, config = _arguments("lora", data, tiny_model, tmp_path / "out", reference=reference)
    likewise.align(model, feedback, objective, reporter=Reporter(quiet=True), **config)
    assert_same_run(tmp_path / "out", data / "plain-lora", None)
