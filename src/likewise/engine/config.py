"""The one configuration of an `align` run: the same keys as flags, in YAML and in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from likewise.errors import BadConfig, nearest


class AlignConfig(BaseModel):
    """Everything that shapes a run. `None` means: derived from the data or the model, and said at the start."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    # what
    model: str = Field(description="the model to align: a folder or a hub name")
    feedback: str = Field(description="thumbs, pairs or ratings: .jsonl, .json, .csv, .parquet, or a hub data set")
    output_dir: Path = Field(Path("aligned"), description="where the aligned model and its records go")
    objective: str = Field("bco", description="what is learnt; `likewise objectives` lists them")
    options: dict[str, Any] = Field(default_factory=dict, description="the objective's options, such as beta")

    # feedback
    split: str = Field("train", description="the split of a hub data set")
    label_map: dict[str, bool] | None = Field(None, description="what labels mean, such as yes=true,no=false")
    columns: dict[str, str] | None = Field(None, description="columns by other names, such as prompt=question")
    skip_bad_rows: bool = Field(False, description="go on without the rows that cannot be used; they are listed")
    rating_threshold: float | None = Field(None, description="ratings from here on are thumbs up (default: top grade)")
    pairs_from: Literal["best_worst", "adjacent", "all"] = Field("best_worst", description="ratings to pairs: which")
    holdout: float = Field(0.0, ge=0, lt=1, description="share of the prompts kept apart to measure the result on")

    # text
    tokenizer: str | None = Field(None, description="a tokenizer other than the model's: a folder or a hub name")
    chat_template: Path | None = Field(None, description="a Jinja file to use as the chat template")
    as_chat: bool = Field(False, description="wrap plain-text prompts as one user turn of a chat")
    max_tokens: int = Field(2048, description="longest prompt and answer together")
    max_prompt_tokens: int = Field(1536, description="longest prompt; longer ones lose their oldest turns")
    long_completions: Literal["error", "skip"] = Field("error", description="answers that do not fit")

    # learning
    epochs: float = Field(1.0, gt=0, description="times over the data")
    max_steps: int | None = Field(None, gt=0, description="stop after so many optimizer steps")
    batch_size: int | None = Field(None, gt=0, description="examples per optimizer step, over all workers")
    learning_rate: float | None = Field(None, gt=0, description="peak learning rate")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="after warm-up")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps over which the learning rate rises")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay")
    adam_betas: tuple[float, float] = Field((0.9, 0.999), description="AdamW's decay rates")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    class_balance: Literal["weights", "oversample", "none"] = Field(
        "weights", description="how thumbs up and down get the same total weight"
    )
    class_weight_cap: float = Field(10.0, ge=1, description="no class weight above this")
    allow_one_class: bool = Field(False, description="learn from thumbs that are all up or all down")
    shuffle: bool = Field(True, description="a new order every epoch")
    seed: int = Field(0, ge=0, description="of the order, the split, and the adapter's initial weights")

    # model
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="precision of the computation")
    lora_rank: int = Field(0, ge=0, description="train an adapter of this rank instead of all weights; 0: all weights")
    lora_alpha: float | None = Field(None, gt=0, description="the adapter's scale (default: twice the rank)")
    lora_targets: list[str] | None = Field(None, description="modules to adapt (default: all linear ones of the body)")
    merge: bool = Field(False, description="merge the adapter into the model at the end")
    reference: Literal["cached", "adapter", "live"] = Field("cached", description="how reference log-probs are had")
    gradient_checkpointing: bool = Field(False, description="less memory, about a third more computation")
    tokens_per_microbatch: int | None = Field(None, gt=0, description="tokens computed at once; memory, not results")
    layout: Literal["auto", "packed", "padded"] = Field("auto", description="how sequences are laid out; not results")
    trust_remote_code: bool = Field(False, description="run code that comes with a hub model")

    # records
    resume: bool = Field(False, description="go on from the newest complete checkpoint in output_dir")
    checkpoint_every: int | None = Field(None, ge=0, description="optimizer steps between checkpoints; 0: none")
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints that are kept")
    log_every: int = Field(1, ge=1, description="optimizer steps between lines of metrics.jsonl")
    report_samples: int = Field(8, ge=0, description="prompts answered by both models for the report; 0: none")
    cache_dir: Path | None = Field(None, description="where reference log-probs are kept for later runs")

    def model_post_init(self, _: Any) -> None:
        if self.merge and not self.lora_rank:
            raise BadConfig("merge is for an adapter, and lora_rank is 0.\nAdd --lora-rank 16, or leave --merge out.")
        if self.reference == "adapter" and not self.lora_rank:
            raise BadConfig(
                "reference is 'adapter' (the model with its adapter off), and lora_rank is 0.\n"
                "Add --lora-rank 16, or use --reference cached."
            )


def make_config(values: dict[str, Any], objective_options: dict[str, Any] | None = None) -> AlignConfig:
    """Check values by hand-written words; keys that no option has are taken as options of the objective.

    Raises: BadConfig for a value that cannot be, or a key that neither the run nor the objective knows.
    """
    values = {key.replace("-", "_"): value for key, value in values.items()}
    options = dict(values.pop("options", None) or {}) | dict(objective_options or {})
    for key in [k for k in values if k not in AlignConfig.model_fields]:
        options[key] = values.pop(key)
    objective = values.get("objective") or "bco"
    options = check_objective_options(objective, options)
    try:
        return AlignConfig(**values, options=options)
    except ValidationError as error:
        raise BadConfig("\n".join(_in_words(e) for e in error.errors())) from None


def check_objective_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    from likewise.objectives import check_options, get_objective

    objective = get_objective(name)
    for key in options:
        if key not in objective.options:
            known = [*objective.options, *AlignConfig.model_fields]
            raise BadConfig(
                f"there is no option {key!r}{nearest(key, known)}\n"
                f"Objective {name!r} takes {', '.join(objective.options) or 'none'}; `likewise align --help` lists the "
                "options of the run."
            )
    return check_options(objective, options)


def read_config(path: Path) -> dict[str, Any]:
    """The keys of a YAML file. Raises: BadConfig."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadConfig(f"{path}: cannot be read ({error.strerror}).") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadConfig(f"{path}: is not valid YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise BadConfig(f"{path}: holds a {type(values).__name__}; expected keys and values, such as 'objective: bco'.")
    return {str(key): value for key, value in values.items()}


def write_config(config: AlignConfig) -> str:
    """The complete configuration as YAML, to be given back with --config."""
    values = config.model_dump(mode="json", exclude={"resume"})
    return "# A complete record of this run: `likewise align --config run.yaml --output-dir NEW` repeats it.\n" + (
        yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    )


def _in_words(error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"]) or "configuration"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        flag = "--" + name.replace("_", "-")
        return f"{name} is missing; give it with {flag} or as a key of the configuration file"
    return f"{name} is {error['input']!r}: {message[0].lower() + message[1:]}"
