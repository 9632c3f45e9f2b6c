"""The aligned model on disk: gathered from all workers, merged if asked, every file whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from likewise.engine.config import AlignConfig
from likewise.engine.files import atomic_folder, saving
from likewise.engine.logps import LogProbModel
from likewise.engine.models import load_model, without_bars

_PREFIX = "causal."


def save_model(
    accelerator: Any,
    prepared: nn.Module,
    wrapped: LogProbModel,
    tokenizer: Any,
    config: AlignConfig,
    output_dir: Path,
    sharded: bool,
) -> Any:
    """Save model and tokenizer into `output_dir`; the model that can be sampled from, or None where it is sharded.

    Every worker must call this. Raises: CannotSave.
    """
    state = None
    if sharded:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=bool(config.lora_rank))
        state = {k.removeprefix(_PREFIX): v for k, v in get_model_state_dict(prepared, options=options).items()}
    causal: Any = wrapped.hand_back()
    if config.gradient_checkpointing:
        wrapped.language_model.gradient_checkpointing_disable()
        wrapped.eval()
    if config.merge and not sharded:
        causal = causal.merge_and_unload()
    if accelerator.is_main_process:
        with without_bars(), atomic_folder(output_dir / "model") as folder:
            causal.save_pretrained(folder, **({"state_dict": state} if state is not None else {}))
            tokenizer.save_pretrained(folder)
            if config.merge and sharded:
                _merge(folder, config)
        _move_up(output_dir / "model", output_dir)
    return None if sharded else causal


def _merge(folder: Path, config: AlignConfig) -> None:
    """Merge an adapter that was gathered from many workers, in the memory of the first one."""
    from peft import PeftModel

    merged = PeftModel.from_pretrained(load_model(config.model), folder).merge_and_unload()
    for file in folder.glob("adapter_*"):
        file.unlink()
    merged.save_pretrained(folder)


def _move_up(folder: Path, target: Path) -> None:
    with saving(target):
        for file in sorted(folder.iterdir()):
            if file.name != "README.md":  # the adapter's empty card; the run writes its own
                os.replace(file, target / file.name)
            else:
                file.unlink()
        folder.rmdir()
