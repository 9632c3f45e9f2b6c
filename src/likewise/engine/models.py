"""Loading models and tokenizers, adapters, and a fingerprint of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import nn

from likewise.engine.config import AlignConfig
from likewise.errors import BadConfig, BadModel


def load_tokenizer(name: str, *, chat_template: Path | None = None, trust_remote_code: bool = False) -> Any:
    """A transformers tokenizer, with a pad token. Raises: BadModel."""
    from transformers import AutoTokenizer

    folder = Path(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    except Exception as error:
        if folder.is_dir():
            raise BadModel(
                f"{name}: holds no tokenizer that can be loaded ({_first_line(error)}).\n"
                "Give one with --tokenizer, a folder or hub name; it must be the one the model was trained with."
            ) from error
        raise BadModel(_not_loaded(name, "tokenizer", error)) from error
    if chat_template is not None:
        try:
            tokenizer.chat_template = chat_template.read_text(encoding="utf-8")
        except OSError as error:
            raise BadConfig(f"{chat_template}: cannot be read ({error.strerror}).") from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def load_model(name: str, *, dtype: torch.dtype = torch.float32, trust_remote_code: bool = False) -> Any:
    """A causal language model in evaluation mode, its dropout switched off for good. Raises: BadModel."""
    from transformers import AutoModelForCausalLM

    folder_exists = Path(name).is_dir()
    if folder_exists and (Path(name) / "adapter_config.json").exists():
        return _load_adapted(name, dtype, trust_remote_code)
    try:
        # A download shows its progress; reading a folder does not need any.
        with without_bars() if folder_exists else nullcontext():
            model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise BadModel(_not_loaded(name, "model", error)) from error
    return without_dropout(model)


@contextmanager
def without_bars() -> Iterator[None]:
    """Transformers' own progress bars off, for a while: they come in the middle of ours."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _load_adapted(name: str, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    """An adapter that was saved on its own: its base model with the adapter merged in."""
    from peft import AutoPeftModelForCausalLM

    try:
        adapted = AutoPeftModelForCausalLM.from_pretrained(name, dtype=dtype, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise BadModel(_not_loaded(name, "adapter or its base model", error)) from error
    return without_dropout(adapted.merge_and_unload())


def _not_loaded(name: str, what: str, error: Exception) -> str:
    folder = Path(name)
    if folder.is_dir():
        mend = "The folder must hold what save_pretrained writes: config.json and *.safetensors."
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        mend = "There is no such folder. Check the path; a hub name has the form 'organisation/name'."
    else:
        mend = (
            "It is no folder here, so it was looked for on the hub. Check the name, the network, and for a gated model "
            "your access; a model that is already downloaded works with HF_HUB_OFFLINE=1."
        )
    return f"{name}: the {what} cannot be loaded ({_first_line(error)}).\n{mend}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def without_dropout(model: nn.Module) -> nn.Module:
    """Dropout off in both directions: policy and reference must be the same function at step 0."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout", "dropout_p"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    model.eval()
    return model


def fits(model: Any, tokenizer: Any) -> None:
    """Raises: BadModel when the tokenizer can name tokens that the model has no embedding for."""
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise BadModel(
            f"the tokenizer has {len(tokenizer):,} tokens and the model embeddings for {rows:,}; they do not belong "
            "together.\nGive the tokenizer the model was trained with (--tokenizer)."
        )


def add_adapter(model: Any, config: AlignConfig) -> Any:
    """A LoRA adapter on the linear layers of the body, in float32; everything else is frozen.

    Raises: BadModel when the targets named are not in the model.
    """
    from peft import LoraConfig, get_peft_model

    targets: Any = config.lora_targets or lora_targets(model)
    torch.manual_seed(config.seed)
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha or 2 * config.lora_rank,
        lora_dropout=0.0,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        adapted = get_peft_model(model, lora, autocast_adapter_dtype=True)
    except ValueError as error:
        names = sorted({n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, nn.Linear)})
        raise BadModel(
            f"lora_targets {targets!r} are not in this model ({_first_line(error)}).\nIts linear layers: "
            + ", ".join(names)
        ) from error
    return adapted.eval()


def lora_targets(model: Any) -> list[str]:
    """The linear layers inside the repeated blocks: attention and feed-forward, not the head nor the embeddings."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    names = {
        name.rsplit(".", 1)[-1]
        for name, module in model.base_model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and any(p.isdigit() for p in name.split("."))
    }
    if not names:
        raise BadModel(
            f"{type(model).__name__}: no linear layers found to adapt.\nName them with --lora-targets, or train all "
            "weights with --lora-rank 0."
        )
    return sorted(names)


def fingerprint(model: nn.Module) -> str:
    """A hash of all weights and of the architecture, so that a cache or checkpoint is never used with another model."""
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    config = getattr(model, "config", None)
    if config is not None:
        # What changes the function without changing a weight: rope settings, scales, windows.
        settings = {k: v for k, v in config.to_dict().items() if k not in ("_name_or_path", "transformers_version")}
        digest.update(repr(sorted(settings.items(), key=lambda item: item[0])).encode())
    return digest.hexdigest()
