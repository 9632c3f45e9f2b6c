"""The model card: Markdown with the hub's YAML front matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from likewise.engine.config import AlignConfig
    from likewise.engine.heldout import HeldOut
    from likewise.engine.summary import Summary


def model_card(config: AlignConfig, summary: Summary, heldout: HeldOut | None, facts: dict[str, Any]) -> str:
    """What the model is, how it was made, and what was found."""
    front = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["likewise", config.objective]}
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# Aligned with {config.objective}\n\n{summary}\n"
