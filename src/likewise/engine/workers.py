"""Workers: how many there are, and the model and optimizer made ready for them by accelerate."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]


def join_workers(dtype: str) -> Any:
    """The accelerator of this process: one of those that `accelerate launch` or `torchrun` started, or alone."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # Told so, accelerate joins several CPU workers too; otherwise it looks for accelerators alone.
    cpu = not torch.accelerator.is_available()
    # accelerate remembers the precision of a process's first run and refuses another one; the workers stay joined.
    AcceleratorState._reset_state()
    return Accelerator(cpu=cpu, mixed_precision="bf16" if dtype == "bfloat16" else "no")


def leave_workers() -> None:
    """Part from the other workers in good order; without it a worker that ends early can abort the others."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        from accelerate.state import AcceleratorState

        torch.distributed.destroy_process_group()
        # A sharded model and accelerate hold connections too; their threads must end before the interpreter does.
        AcceleratorState._reset_state(reset_partial_state=True)
        gc.collect()


def is_sharded(accelerator: Any) -> bool:
    """Whether every worker holds a part of the weights (FSDP2) instead of all of them."""
    return accelerator.distributed_type.value == "FSDP" or _sharded_on_cpu(accelerator)


def prepare(
    accelerator: Any, model: nn.Module, make_optimizer: MakeOptimizer
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model as this worker runs it, and its optimizer."""
    if _sharded_on_cpu(accelerator):
        # accelerate shards on accelerators alone. Its own function does the same on CPU workers, once it finds the
        # settings it was started with: this is how sharding is tested without a GPU.
        from accelerate.utils import FullyShardedDataParallelPlugin
        from accelerate.utils.fsdp_utils import fsdp2_prepare_model

        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(cpu_ram_efficient_loading=False)
        model = fsdp2_prepare_model(accelerator, model)
        return model, make_optimizer(model)
    model, optimizer = accelerator.prepare(model, make_optimizer(model))
    return model, optimizer.optimizer


def _sharded_on_cpu(accelerator: Any) -> bool:
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    return asked and accelerator.distributed_type.value == "MULTI_CPU"
