"""`likewise sample`: answers to a file of prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from likewise.schema import Content


def sample(
    prompts: str | None = None,
    /,
    *,
    model: str,
    prompt: str | None = None,
    output: Path | None = None,
    tokenizer: str | None = None,
    chat_template: Path | None = None,
    as_chat: Annotated[bool, Parameter(negative="")] = False,
    n: int = 1,
    max_new_tokens: int = 256,
    max_prompt_tokens: int = 1536,
    temperature: float = 1.0,
    top_p: float = 1.0,
    batch_size: int = 32,
    seed: int = 0,
    limit: int | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    trust_remote_code: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Answer prompts with a model.

    Parameters
    ----------
    prompts
        A file with a column `prompt`, text or chat messages (.jsonl, .json, .csv, .parquet); feedback files serve too.
    model
        A folder or hub name; a folder with an adapter takes its base model from the adapter's own record.
    prompt
        One prompt, given here instead of in a file.
    output
        JSON lines with prompt and completion; without it they are printed.
    tokenizer
        A tokenizer other than the model's.
    chat_template
        A Jinja file to use as the chat template.
    as_chat
        Wrap plain-text prompts as one user turn of a chat.
    n
        Answers per prompt.
    max_new_tokens
        Longest answer.
    max_prompt_tokens
        Longest prompt; longer ones lose their oldest turns, as in training.
    temperature
        1 samples from the model itself; lower is more certain; 0 takes the likeliest token.
    top_p
        Keep the smallest set of tokens that holds this much probability.
    batch_size
        Prompts answered at once.
    seed
        The same seed, prompts and batch size give the same answers.
    limit
        Answer no more prompts than this.
    dtype
        Precision of weights and computation.
    trust_remote_code
        Run code that comes with a hub model.
    """
    import torch

    from likewise.data.read import read_prompts
    from likewise.engine.models import fits, load_model, load_tokenizer
    from likewise.engine.progress import Reporter
    from likewise.errors import BadConfig
    from likewise.evaluate import sample as draw

    if (prompts is None) == (prompt is None):
        raise BadConfig("give prompts either as a file, or one as --prompt TEXT.")
    asked: list[Content] = [prompt] if prompt is not None else read_prompts(str(prompts), limit=limit)
    words = load_tokenizer(tokenizer or model, chat_template=chat_template, trust_remote_code=trust_remote_code)
    loaded = load_model(model, dtype=getattr(torch, dtype), trust_remote_code=trust_remote_code)
    fits(loaded, words)
    if torch.cuda.is_available():
        loaded.to("cuda")
    repeated = [p for p in asked for _ in range(n)]
    with Reporter().phase("answers", len(repeated)) as advance:
        answers = draw(
            loaded,
            words,
            repeated,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            batch_size=batch_size,
            seed=seed,
            max_prompt_tokens=max_prompt_tokens,
            as_chat=as_chat,
            progress=advance,
        )
    _write(repeated, answers, output)


def _write(prompts: list[Content], answers: list[str], output: Path | None) -> None:
    import json

    from likewise.engine.files import write_text

    lines = [json.dumps({"prompt": p, "completion": a}, ensure_ascii=False) for p, a in zip(prompts, answers)]
    if output is not None:
        write_text(output, "\n".join(lines) + "\n")
        print(f"Wrote {len(lines):,} answers to {output}.")
    else:
        print("\n".join(lines))
