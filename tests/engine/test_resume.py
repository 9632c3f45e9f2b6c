"""A killed run, resumed, ends as if nothing had happened; a checkpoint of another run is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from processes import Child, metrics_of
from safetensors.torch import load_file

from likewise.errors import BadCheckpoint

CONFIG = {"batch_size": 4, "learning_rate": 1e-3, "checkpoint_every": 2, "report_samples": 0, "epochs": 2}


@pytest.fixture
def feedback(thumbs, write_jsonl) -> Path:
    return write_jsonl(thumbs(20))  # ten steps in two epochs, five checkpoints


def _lines(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def _half_written(folder: Path, name: str) -> bool:
    """A file of a checkpoint stands under its temporary name, and it is not the first checkpoint."""
    return any(folder.glob(f"checkpoints/.tmp-*/{name}")) and any(folder.glob("checkpoints/step-*"))


MOMENTS = {
    "before the first checkpoint": (lambda o: _lines(o) == 1, {}),
    "between checkpoints": (lambda o: _lines(o) == 5, {}),
    "while the optimizer is being written": (
        lambda o: _half_written(o, "optimizer.safetensors"),
        {"slow_saving": [0.5, "optimizer.safetensors"]},
    ),
    "while the first checkpoint is being written": (
        lambda o: any(o.glob("checkpoints/.tmp-*/model.safetensors")),
        {"slow_saving": [0.5, "model.safetensors"]},
    ),
    "before a checkpoint gets its name": (lambda o: _half_written(o, "run.json"), {"slow_naming": 0.3}),
    "while old checkpoints are cleared away": (lambda o: (o / "checkpoints" / "step-6").exists(), {}),
    "while the model is moved to its place": (
        lambda o: (o / "model").exists() and (o / "config.json").exists(),
        {"slow_moving": 0.3},
    ),
}


def _kill(tmp_path: Path, model: Path, feedback: Path, out: Path, moment: str, **config) -> None:
    reached, slow = MOMENTS[moment]
    run = {"model": str(model), "feedback": str(feedback), "output_dir": str(out), **CONFIG, **config}
    child = Child(tmp_path / "killed.log", [run], slow_steps=0.03, **slow)
    assert child.kill_when(lambda: reached(out)), "the run ended before it could be killed"


def assert_undisturbed(got: Path, wanted: Path) -> None:
    """Bit-identical weights, and the very same numbers in every line of the metrics."""
    adapter = (wanted / "adapter_model.safetensors").exists()
    name = "adapter_model.safetensors" if adapter else "model.safetensors"
    new, old = load_file(got / name), load_file(wanted / name)
    assert set(new) == set(old)
    assert all(torch.equal(new[k], old[k]) for k in old)
    clocks = {"seconds", "examples_per_second", "tokens_per_second", "peak_memory_bytes"}
    rows = [[{k: v for k, v in m.items() if k not in clocks} for m in metrics_of(folder)] for folder in (got, wanted)]
    assert rows[0] == rows[1]
    assert not [p for p in got.rglob("*") if ".tmp-" in p.name]
    assert sorted(p.name for p in got.iterdir()) == sorted(p.name for p in wanted.iterdir())


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_resumes_to_the_same_bits(align, feedback, tiny_model, tmp_path, moment):
    whole = align(feedback, **CONFIG)
    out = tmp_path / "killed"
    _kill(tmp_path, tiny_model, feedback, out, moment)
    resumed = align(feedback, output_dir=out, resume=True, **CONFIG)
    assert_undisturbed(out, whole.folder)
    if moment in ("before the first checkpoint", "while the first checkpoint is being written"):
        assert "no checkpoint found" in resumed.printed
    else:
        assert "resumed after step" in resumed.printed


@pytest.mark.parametrize("options", [{"objective": "kto"}, {"lora_rank": 4}, {"shift_rate": 0.7, "warmup": 0.3}])
def test_every_part_of_a_run_comes_back(align, feedback, tiny_model, tmp_path, options):
    """KTO's baseline, an adapter, BCO's shift in mid-flight: all bit by bit."""
    config = {**CONFIG, **options}
    whole = align(feedback, **config)
    out = tmp_path / "killed"
    _kill(tmp_path, tiny_model, feedback, out, "between checkpoints", **options)
    align(feedback, output_dir=out, resume=True, **config)
    assert_undisturbed(out, whole.folder)


def test_a_run_killed_twice_still_ends_the_same(align, feedback, tiny_model, tmp_path):
    whole = align(feedback, **CONFIG)
    out = tmp_path / "killed"
    _kill(tmp_path, tiny_model, feedback, out, "between checkpoints")
    run = {"model": str(tiny_model), "feedback": str(feedback), "output_dir": str(out), "resume": True, **CONFIG}
    child = Child(tmp_path / "again.log", [run], slow_steps=0.03)
    assert child.kill_when(lambda: _lines(out) == 8)
    align(feedback, output_dir=out, resume=True, **CONFIG)
    assert_undisturbed(out, whole.folder)


def test_the_state_of_the_objective_stands_in_the_checkpoint(align, feedback):
    run = align(feedback, **CONFIG)
    state = load_file(run.folder / "checkpoints" / "step-8" / "state.safetensors")
    up, down = (float(state[f"objective::{side}_mean"]) for side in ("desirable", "undesirable"))
    # δ of step 9 is half-way between the class means that step 8 left.
    assert run.metrics[8]["objective/shift"] == pytest.approx((up + down) / 2, rel=1e-12)


def test_a_finished_run_may_be_resumed_and_stays_as_it_is(align, feedback):
    first = align(feedback, **CONFIG)
    weights, metrics = first.weights, metrics_of(first.folder)
    again = align(feedback, output_dir=first.folder, resume=True, **CONFIG)
    assert "resumed after step 10" in again.printed
    assert metrics_of(first.folder) == metrics == again.metrics
    assert all(torch.equal(again.weights[k], v) for k, v in weights.items())


def _stopped_after(align, feedback, steps: int, **config) -> Path:
    """The folder of a run as it stood when `steps` were done."""
    run = align(feedback, **{**CONFIG, "keep_checkpoints": 9, **config})
    for path in (run.folder / "checkpoints").iterdir():
        if int(path.name.removeprefix("step-")) > steps:
            shutil.rmtree(path)
    return run.folder


def test_how_steps_are_cut_may_change_on_resuming(align, feedback):
    whole = align(feedback, **CONFIG)
    out = _stopped_after(align, feedback, 4)
    resumed = align(feedback, output_dir=out, resume=True, **CONFIG, tokens_per_microbatch=40, layout="padded")
    assert resumed.losses == pytest.approx(whole.losses, rel=1e-5)


def test_a_run_is_resumed_with_its_own_run_yaml(align, feedback, tiny_model):
    """What was derived at the start stands there as a value; it is no change."""
    import likewise

    derived = {k: v for k, v in CONFIG.items() if k not in ("batch_size", "learning_rate")}
    run = align(feedback, **derived, batch_size=None, learning_rate=None)
    values = yaml.safe_load((run.folder / "run.yaml").read_text())
    assert values["batch_size"] == 8
    values["options"] = values.pop("options")
    result = likewise.align(values.pop("model"), values.pop("feedback"), values.pop("objective"), resume=True, **values)
    assert len(result.metrics) == len(run.metrics)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"learning_rate": 2e-3}, r"settings learning_rate: was 0.001, is 0.002"),
        ({"batch_size": 5}, r"settings batch_size: was 4, is 5"),
        ({"seed": 1}, r"settings seed: was 0, is 1"),
        ({"epochs": 3}, r"settings epochs: was 2.0, is 3"),
        ({"objective": "bce"}, r"objective"),
        ({"beta": 0.3}, r"objective bco beta: was 0.1, is 0.3"),
        ({"lora_rank": 4}, r"settings lora_rank: was 0, is 4"),
        ({"max_prompt_tokens": 20}, r"feedback"),
    ],
)
def test_resuming_another_run_names_what_changed(align, feedback, change, named):
    out = _stopped_after(align, feedback, 4)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(BadCheckpoint, match=named) as caught:
        align(feedback, output_dir=out, resume=True, **{**CONFIG, **change})
    if "settings" in named or "beta" in named:
        assert str(caught.value).count("was") == 2  # the one change, and "Give back what it was"
    assert {p: p.read_bytes() for p in before} == before


def test_resuming_with_other_rows_or_another_model_is_refused(
    align, thumbs, feedback, write_jsonl, tiny_model, tmp_path
):
    out = _stopped_after(align, feedback, 4)
    rows = thumbs(20)
    rows[3]["label"] = not rows[3]["label"]
    with pytest.raises(BadCheckpoint, match="feedback"):
        align(write_jsonl(rows, "other.jsonl"), output_dir=out, resume=True, **CONFIG)
    other = tmp_path / "other-model"
    shutil.copytree(tiny_model, other)
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"][0] += 1e-3
    from safetensors.torch import save_file

    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadCheckpoint, match="model"):
        align(feedback, model=other, output_dir=out, resume=True, **CONFIG)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.safetensors", "run.json", "{}"])
def test_a_broken_newest_checkpoint_is_named_and_the_one_before_it_serves(align, feedback, tmp_path, name):
    whole = align(feedback, **CONFIG)
    out = _stopped_after(align, feedback, 6)
    newest = out / "checkpoints" / "step-6"
    if name == "{}":
        (newest / "run.json").write_text(json.dumps({}))
    else:
        content = (newest / name).read_bytes()
        (newest / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(BadCheckpoint, match=r"step-6(.|\n)*Remove that folder"):
        align(feedback, output_dir=out, resume=True, **CONFIG)
    shutil.rmtree(newest)
    again = align(feedback, output_dir=out, resume=True, **CONFIG)
    assert "resumed after step 4" in again.printed
    assert again.losses == whole.losses


def test_old_checkpoints_go_and_the_newest_stay(align, feedback):
    run = align(feedback, **CONFIG)
    assert sorted(p.name for p in (run.folder / "checkpoints").iterdir()) == ["step-10", "step-8"]
    none = align(feedback, **{**CONFIG, "checkpoint_every": 0})
    assert not (none.folder / "checkpoints").exists()


def test_random_state_comes_back_with_the_tensors(tiny_model):
    from transformers import AutoModelForCausalLM

    from likewise.engine.checkpoint import TrainingTensors

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    optimizer = torch.optim.AdamW(model.parameters())
    torch.manual_seed(7)
    kept = TrainingTensors.of(model, optimizer, {"x": torch.tensor(2.5, dtype=torch.float64)}, sharded=False)
    wanted = torch.rand(4)
    torch.manual_seed(8)
    state = kept.restore(model, optimizer, sharded=False)
    assert torch.equal(torch.rand(4), wanted)
    assert state == {"x": torch.tensor(2.5, dtype=torch.float64)}
