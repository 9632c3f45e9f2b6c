"""What a run leaves on disk, and that a disk which refuses never costs what was saved before."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from processes import Child, metrics_of
from safetensors.torch import load_file

from likewise.engine.files import atomic_folder, write_text
from likewise.errors import BadConfig, CannotSave

CLOCKS = {"seconds", "examples_per_second", "tokens_per_second", "peak_memory_bytes"}
IDS = torch.tensor([[5, 80, 33, 7, 200, 12]])


def _logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def _without_clocks(folder: Path) -> list[dict]:
    return [{k: v for k, v in m.items() if k not in CLOCKS} for m in metrics_of(folder)]


def test_the_output_folder_holds_what_the_contract_says(align, thumbs):
    run = align(thumbs(24), checkpoint_every=2, holdout=0.2, report_samples=2)
    names = {p.name for p in run.folder.iterdir()}
    assert {
        "model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
        "run.yaml", "metrics.jsonl", "summary.json", "report.html", "README.md", "checkpoints",
    } <= names  # fmt: skip
    assert not [p for p in run.folder.rglob("*") if p.name.startswith(".") or p.suffix in (".pt", ".pkl", ".bin")]
    assert {p.name for p in (run.folder / "checkpoints" / "step-2").iterdir()} == {
        "model.safetensors", "optimizer.safetensors", "state.safetensors", "run.json",
    }  # fmt: skip
    assert json.loads((run.folder / "summary.json").read_text())["heldout"]["measure"] == "AUC"


def test_files_may_be_read_by_whoever_may_read_the_folder(align, thumbs):
    run = align(thumbs(8))
    mask = os.umask(0)
    os.umask(mask)
    modes = {p.name: p.stat().st_mode & 0o777 for p in run.folder.iterdir() if p.is_file()}
    assert set(modes.values()) == {0o666 & ~mask}, modes


def test_the_saved_model_loads_with_transformers_and_gives_the_trained_logits(align, thumbs, tiny_model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = align(thumbs(24))
    saved = AutoModelForCausalLM.from_pretrained(run.folder)
    torch.testing.assert_close(_logits(saved), _logits(run.result.model), rtol=1e-5, atol=1e-5)
    assert (_logits(saved) - _logits(AutoModelForCausalLM.from_pretrained(tiny_model))).abs().max() > 1e-3
    tokenizer, before = (AutoTokenizer.from_pretrained(p) for p in (run.folder, tiny_model))
    chat = [{"role": "user", "content": "hi"}]
    render = {"tokenize": False, "add_generation_prompt": True}
    assert tokenizer.apply_chat_template(chat, **render) == before.apply_chat_template(chat, **render)
    assert tokenizer.eos_token_id == before.eos_token_id


def test_an_adapter_loads_with_peft_and_equals_the_merged_model(align, thumbs, tiny_model):
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    config = {"lora_rank": 4, "learning_rate": 2e-2, "epochs": 2}
    adapter, merged = align(thumbs(24), **config), align(thumbs(24), merge=True, **config)
    assert (adapter.folder / "adapter_config.json").exists()
    assert not (adapter.folder / "model.safetensors").exists()
    assert not list(merged.folder.glob("adapter_*"))
    on = _logits(AutoPeftModelForCausalLM.from_pretrained(adapter.folder))
    torch.testing.assert_close(on, _logits(AutoModelForCausalLM.from_pretrained(merged.folder)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(on, _logits(adapter.result.model), rtol=1e-4, atol=1e-4)
    assert (on - _logits(AutoModelForCausalLM.from_pretrained(tiny_model))).abs().max() > 1e-2


@pytest.mark.parametrize("options", [{}, {"lora_rank": 3, "objective": "kto", "options": {"beta": 0.2}}])
def test_run_yaml_repeats_the_run(align, thumbs, write_jsonl, options):
    """Everything that was derived stands in it; only the output folder is another one."""
    import likewise
    from likewise.engine.progress import Reporter

    feedback = write_jsonl(thumbs(30))
    run = align(feedback, batch_size=None, learning_rate=None, checkpoint_every=None, holdout=0.2, **options)
    values = yaml.safe_load((run.folder / "run.yaml").read_text())
    assert None not in (values["batch_size"], values["learning_rate"], values["checkpoint_every"])
    values["output_dir"] = run.folder.with_name("again")
    model, rows, objective = (values.pop(k) for k in ("model", "feedback", "objective"))
    likewise.align(model, rows, objective, reporter=Reporter(quiet=True), **values)
    assert _without_clocks(run.folder) == _without_clocks(values["output_dir"])


@pytest.mark.slow
def test_run_yaml_repeats_the_run_from_the_command_line(align, thumbs, write_jsonl, tmp_path):
    run = align(write_jsonl(thumbs(16)), options={"beta": 0.3})
    command = [sys.executable, "-m", "likewise.cli", "align", "--config", str(run.folder / "run.yaml")]
    done = subprocess.run(
        [*command, "--output-dir", str(tmp_path / "again"), "--quiet"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert [m["loss"] for m in metrics_of(tmp_path / "again")] == run.losses


def test_a_tied_model_is_saved_once_and_stays_tied(align, thumbs, tmp_path, tiny_tokenizer):
    from families import make
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**{**make("llama-tied").config.to_dict(), "vocab_size": len(tiny_tokenizer)})
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "tied")
    tiny_tokenizer.save_pretrained(tmp_path / "tied")
    run = align(thumbs(24), model=tmp_path / "tied", checkpoint_every=1)
    assert "lm_head.weight" not in run.weights
    saved = AutoModelForCausalLM.from_pretrained(run.folder)
    assert saved.lm_head.weight.data_ptr() == saved.model.embed_tokens.weight.data_ptr()
    torch.testing.assert_close(_logits(saved), _logits(run.result.model))
    for path in (run.folder / "checkpoints").iterdir():
        if path.name != "step-2":
            shutil.rmtree(path)
    again = align(thumbs(24), model=tmp_path / "tied", checkpoint_every=1, output_dir=run.folder, resume=True)
    assert again.losses == run.losses
    assert all(torch.equal(again.weights[k], v) for k, v in load_file(run.folder / "model.safetensors").items())


# -- folders that cannot be used --------------------------------------------------------------------------------------


def test_a_folder_that_is_not_empty_is_left_alone(align, thumbs, tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    with pytest.raises(BadConfig, match=r"not empty(.|\n)*--output-dir(.|\n)*--resume"):
        align(thumbs(8), output_dir=out)
    assert [p.name for p in out.iterdir()] == ["precious.txt"]


def test_a_file_in_the_place_of_the_folder_is_refused(align, thumbs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadConfig, match="is a file"):
        align(thumbs(8), output_dir=tmp_path / "file")
    with pytest.raises(CannotSave, match="cannot be written"):
        align(thumbs(8), output_dir=tmp_path / "file" / "out")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    try:
        with pytest.raises(CannotSave, match=r"a\.txt: cannot be written"):
            write_text(tmp_path / "a.txt", "new" * 1000)
        with pytest.raises(CannotSave), atomic_folder(tmp_path / "folder") as folder:
            (folder / "b.txt").write_text("x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_an_atomic_folder_replaces_the_old_one_as_a_whole(tmp_path):
    for text in ("one", "two"):
        with atomic_folder(tmp_path / "f") as folder:
            (folder / f"{text}.txt").write_text(text)
    assert [p.name for p in (tmp_path / "f").iterdir()] == ["two.txt"]

    def interrupted() -> None:
        with atomic_folder(tmp_path / "f") as folder:
            (folder / "three.txt").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in (tmp_path / "f").iterdir()] == ["two.txt"]


# -- a disk that fills up ---------------------------------------------------------------------------------------------


def _run_on_a_small_disk(tmp_path: Path, model: Path, feedback: Path, limit: int, after: int) -> Child:
    """No file may grow beyond `limit` bytes once `after` checkpoints stand: the disk has filled up."""
    run = {"model": str(model), "feedback": str(feedback), "output_dir": str(tmp_path / "out"), "batch_size": 4}
    run |= {"learning_rate": 1e-3, "checkpoint_every": 1, "keep_checkpoints": 9, "report_samples": 0}
    child = Child(tmp_path / "log", [run], disk_full=[limit, after])
    assert child.wait() == 2, child.printed
    return child


@pytest.mark.parametrize("limit", [0, 20_000, 200_000])  # the weights take 141 kB, the moments twice that
def test_a_full_disk_ends_with_one_message_and_the_last_checkpoint_whole(
    align, thumbs, write_jsonl, tiny_model, tmp_path, limit
):
    feedback = write_jsonl(thumbs(20))
    child = _run_on_a_small_disk(tmp_path, tiny_model, feedback, limit, after=2)
    assert "CannotSave: " in child.printed
    assert "--resume" in child.printed
    assert "Traceback" not in child.printed
    out = tmp_path / "out"
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == ["step-1", "step-2"]
    config = {"batch_size": 4, "learning_rate": 1e-3, "checkpoint_every": 1, "keep_checkpoints": 9}
    whole = align(feedback, **config)
    resumed = align(feedback, output_dir=out, resume=True, **config)
    assert "resumed after step 2" in resumed.printed
    assert resumed.losses == whole.losses
    assert all(torch.equal(resumed.weights[k], v) for k, v in whole.weights.items())


@pytest.mark.slow
def test_a_full_disk_on_the_command_line_is_exit_code_two(thumbs, write_jsonl, tiny_model, tmp_path):
    """A tiny file system of its own, where this may be mounted; else a limit on the size of files."""
    feedback, disk = write_jsonl(thumbs(20)), tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", disk]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    command = [sys.executable, "-m", "likewise.cli", "align", "--model", str(tiny_model), "--feedback", str(feedback)]
    command += ["--output-dir", str(disk / "out"), "--batch-size", "4", "--learning-rate", "1e-3", "--quiet"]
    command += ["--checkpoint-every", "1", "--report-samples", "0"]
    limit = "" if mounted else "trap '' XFSZ; ulimit -f 200; "
    try:
        done = subprocess.run(["bash", "-c", limit + '"$@"', "-", *command], capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert "cannot be written" in done.stderr
        assert "Traceback" not in done.stderr
        if mounted:
            assert [p.name for p in (disk / "out" / "checkpoints").iterdir()] == ["step-1"]
            assert load_file(disk / "out" / "checkpoints" / "step-1" / "model.safetensors")
    finally:
        if mounted:
            subprocess.run(["umount", disk], check=True)
