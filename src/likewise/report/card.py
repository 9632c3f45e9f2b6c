"""The model card: Markdown with the hub's YAML front matter."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from likewise.report import words

if TYPE_CHECKING:
    from likewise.engine.config import AlignConfig
    from likewise.engine.heldout import HeldOut
    from likewise.engine.summary import Summary

# A file that is gone by now is still no data set of the hub.
_DATA_FILE = re.compile(r"\.(jsonl?|csv|tsv|parquet)(\.gz)?$", re.IGNORECASE)


def model_card(config: AlignConfig, summary: Summary, heldout: HeldOut | None, facts: dict[str, Any]) -> str:
    """What the model is, how it was made, what was found, what it is not, and how to repeat it.

    Paths of the machine it was made on stay out: of a local model or file only its own name is told.
    """
    front = yaml.safe_dump(front_matter(config), sort_keys=False, allow_unicode=True)
    parts = [f"---\n{front}---", f"# {_own_name(config)}", _what(config), _use(config)]
    parts += ["## How it was made", _how(config, facts), "## What was found", _found(summary, heldout)]
    parts += ["## What it is not", _NOT, "## How to repeat it", _repeat(config)]
    return "\n\n".join(parts) + "\n"


def front_matter(config: AlignConfig) -> dict[str, Any]:
    """What the hub reads; a local base model and local feedback have no name there and are left out."""
    front: dict[str, Any] = {}
    if _on_hub(config.model):
        front["base_model"] = config.model
        front["base_model_relation"] = "adapter" if _is_adapter(config) else "finetune"
    if (
        config.feedback != "given rows"
        and not _DATA_FILE.search(config.feedback)
        and not words.is_local(config.feedback)
    ):
        front["datasets"] = [config.feedback]
    front["library_name"] = "peft" if _is_adapter(config) else "transformers"
    front["pipeline_tag"] = "text-generation"
    front["tags"] = ["likewise", config.objective, "alignment", "human-feedback"] + ["lora"] * bool(config.lora_rank)
    return front


def _is_adapter(config: AlignConfig) -> bool:
    return bool(config.lora_rank) and not config.merge


def _on_hub(name: str) -> bool:
    return name != "given" and not words.is_local(name)


def _own_name(config: AlignConfig) -> str:
    # The folder may be given as "." or end in "..".
    return _text(Path(config.output_dir).resolve().name or "Aligned model")


def _base(config: AlignConfig) -> str:
    if config.model == "given":
        return "a model given from Python"
    name = words.short_name(config.model)
    return f"[{name}](https://huggingface.co/{name})" if _on_hub(config.model) else f"`{_code(name)}`"


def _source(config: AlignConfig) -> str:
    return (
        "rows given from Python" if config.feedback == "given rows" else f"`{_code(words.short_name(config.feedback))}`"
    )


def _what(config: AlignConfig) -> str:
    kind = "A LoRA adapter for" if _is_adapter(config) else "A version of"
    return (
        f"{kind} {_base(config)}, aligned with people's feedback by {config.objective.upper()}, using "
        f"likewise {words.versions()['likewise']}."
    )


def _use(config: AlignConfig) -> str:
    loader = ("peft", "AutoPeftModelForCausalLM") if _is_adapter(config) else ("transformers", "AutoModelForCausalLM")
    imports = f"from {loader[0]} import {loader[1]}\nfrom transformers import AutoTokenizer"
    if loader[0] == "transformers":
        imports = f"from transformers import {loader[1]}, AutoTokenizer"
    return (
        f'```python\n{imports}\n\nhere = "path/to/this/folder"  # or its name on the hub\n'
        f"model = {loader[1]}.from_pretrained(here)\ntokenizer = AutoTokenizer.from_pretrained(here)\n```"
    )


def _how(config: AlignConfig, facts: dict[str, Any]) -> str:
    options = ", ".join(f"{name} {words.plain(value)}" for name, value in config.options.items())
    weights = f"adapter of rank {config.lora_rank}{', merged' * config.merge}" if config.lora_rank else "all"
    rows = {
        "feedback": _source(config),
        **{_text(str(name)): _text(words.plain(value)) for name, value in facts.items()},
        "objective": config.objective + (f" ({_text(options)})" if options else ", at its default options"),
        "weights trained": f"{weights}, computed in {config.dtype}",
        "batch size": "derived" if config.batch_size is None else words.plain(config.batch_size),
        "learning rate": "derived" if config.learning_rate is None else words.plain(config.learning_rate),
        "schedule": f"{config.schedule}, warm-up over {config.warmup:.0%} of the steps",
        "length": _length(config),
        "longest prompt and answer": f"{config.max_tokens:,} tokens",
        "seed": str(config.seed),
    }
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows.items())


def _length(config: AlignConfig) -> str:
    epochs = f"{config.epochs:g} {'epoch' if config.epochs == 1 else 'epochs'}"
    return epochs + (f", at most {config.max_steps:,} steps" if config.max_steps else "")


def _found(summary: Summary, heldout: HeldOut | None) -> str:
    lines = [f"- {finding.mark} {_text(finding.text)}" for finding in summary.findings]
    lines = lines or ["- nothing was measured"]
    key = "✓ as it should be, ! wants attention, · a fact."
    if heldout is None:
        key += " No feedback was held out, so all of this is about the rows it learnt from."
    return "\n".join(lines) + f"\n\n{key} The curves are in `report.html`, every number in `metrics.jsonl`."


_NOT = """\
- Not shown to be better: the findings above are about how well it fits feedback, not about what people think of its
  answers. `likewise evaluate` compares answers.
- Not safer or more truthful than its base model: it has learnt what those who gave the feedback liked, with their
  errors and their tastes, and keeps whatever else the base model had.
- Not made for prompts unlike those of the feedback."""


def _repeat(config: AlignConfig) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in words.versions().items())
    given = [what for what, here in _given(config).items() if here]
    also = f"\n\nThe {' and the '.join(given)} were given from Python and must be named again." if given else ""
    return (
        "```\nlikewise align --config run.yaml --output-dir NEW\n```\n\n"
        f"`run.yaml` holds every setting. Made with {versions}, on {_text(words.hardware())}.{also}"
    )


def _given(config: AlignConfig) -> dict[str, bool]:
    return {"model": config.model == "given", "rows": config.feedback == "given rows"}


def _text(text: str) -> str:
    """Words that Markdown must not read as markup, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(words.showable(text).split()))


def _code(text: str) -> str:
    return words.showable(text).replace("`", "'").replace("|", "/").replace("\n", " ")
