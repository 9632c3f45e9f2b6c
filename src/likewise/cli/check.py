"""`likewise check`: is this feedback fit to learn from?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from likewise.data.check import CheckReport, Lengths


def check(
    feedback: str,
    /,
    *,
    model: str | None = None,
    tokenizer: str | None = None,
    chat_template: Path | None = None,
    max_tokens: int = 2048,
    max_prompt_tokens: int = 1536,
    as_chat: Annotated[bool, Parameter(negative="")] = False,
    kind: Literal["label", "pair", "rating"] | None = None,
    columns: str | None = None,
    label_map: str | None = None,
    split: str = "train",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Is this feedback fit to learn from? Counts, lengths, contradictions, and a verdict in words.

    Ends with exit code 0 where the feedback is fit (with or without caution), and 2 where it is not.

    Parameters
    ----------
    feedback
        A file (.jsonl, .json, .csv, .tsv, .parquet) or the name of a hub data set.
    model
        The model to be aligned: lengths are then counted in its tokens.
    tokenizer
        A tokenizer other than the model's.
    chat_template
        A Jinja file to use as the chat template.
    max_tokens
        Longest prompt and answer together, as for align.
    max_prompt_tokens
        Longest prompt, as for align.
    as_chat
        Wrap plain-text prompts as one user turn of a chat, as for align.
    kind
        The kind of feedback, where the columns allow more than one.
    columns
        Names that differ in the file, as in prompt=question,completion=answer.
    label_map
        What the labels mean, as in yes=true,no=false.
    split
        Which split of a hub data set to read.
    json
        Print the numbers as JSON.
    """
    from likewise.data.check import check as check_feedback
    from likewise.data.read import read_feedback

    rows = read_feedback(feedback, kind=kind, columns=columns, label_map=label_map, split=split, skip_bad_rows=True)
    report = check_feedback(
        rows,
        _tokenizer(tokenizer or model, chat_template),
        max_tokens=max_tokens,
        max_prompt_tokens=max_prompt_tokens,
        as_chat=as_chat,
    )
    if json:
        _print_json(report.to_dict())
    else:
        print_report(report)
    if report.verdict == "NOT FIT":
        sys.exit(2)


def _tokenizer(name: str | None, chat_template: Path | None) -> Any:
    if name is None:
        return None
    from likewise.engine.models import load_tokenizer

    return load_tokenizer(name, chat_template=chat_template)


def _print_json(value: Any) -> None:
    import json

    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_report(report: CheckReport, console: Console | None = None) -> None:
    """The report as one screen, the verdict last."""
    from rich.console import Console
    from rich.text import Text

    console = console or Console(highlight=False)
    console.print(_facts(report))
    console.print(_length_table(report))
    for bad in report.bad_rows:
        rows = ", ".join(map(str, bad.rows)) + (", …" if bad.count > len(bad.rows) else "")
        console.print(Text(f"bad row{'s' if bad.count > 1 else ''} {rows}: {bad.reason} ({bad.count:,})", style="dim"))
    console.print()
    style = {"FIT": "bold green", "FIT WITH CAUTION": "bold yellow", "NOT FIT": "bold red"}[report.verdict]
    console.print(Text(report.verdict, style=style))
    for finding in report.findings:
        mark, style = _MARKS[finding.level]
        mend = f" {finding.mend}" if finding.mend else ""
        console.print(Text.assemble((f"{mark} ", style), finding.text, (mend, "italic")))
    if not report.findings:
        console.print("Nothing stands out.")


_MARKS = {"stop": ("✗", "red"), "caution": ("!", "yellow"), "note": ("·", "dim")}


def _facts(report: CheckReport) -> Table:
    from rich.table import Table
    from rich.text import Text

    from likewise.schema import plural

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)

    def say(name: str, value: str) -> None:
        table.add_row(name, Text(value))

    say("feedback", report.source)
    noun = {"label": "thumb", "pair": "pair", "rating": "prompt with rated answers"}[report.kind]
    left_out = f" of {plural(report.rows_read, 'row')}" if report.bad_rows else ""
    answers = f", {plural(report.answers, 'answer')}" if report.kind == "rating" else ""
    rows = f"{report.rows:,} prompts with rated answers" if report.kind == "rating" else plural(report.rows, noun)
    say("rows", rows + answers + left_out)
    say("prompts", _prompts(report))
    if report.classes is not None:
        c = report.classes
        soft = f"; {c.probabilities:,} of the labels are probabilities" if c.probabilities else ""
        say("thumbs", f"{c.up:,} up, {c.down:,} down ({c.up / max(1, c.up + c.down):.1%} up){soft}")
    if report.ratings is not None:
        say("ratings", ", ".join(f"{grade}: {count:,}" for grade, count in report.ratings.histogram.items()))
    if report.pairs is not None:
        p = report.pairs
        say("pairs", f"{p.ties:,} ties, {p.identical:,} with equal answers")
    say("repeats", f"{report.duplicates:,} exact repeats, {report.contradictions:,} with contradicting votes")
    if report.length_bias is not None:
        b = report.length_bias
        say("length", f"{b.of}: {b.score:.2f} (95 % {b.low:.2f} to {b.high:.2f}; 0.5 is chance)")
    if report.limits is not None:
        m = report.limits
        cut = f"{plural(m.trimmed_prompts, 'prompt')} trimmed, {plural(m.skipped, 'row')} left out"
        say("limits", f"{m.max_tokens:,} tokens, at most {m.max_prompt_tokens:,} of prompt: {cut}")
    if report.unused_columns:
        say("not used", "columns " + ", ".join(report.unused_columns))
    return table


def _prompts(report: CheckReport) -> str:
    p = report.prompts
    text = f"{p.distinct:,} distinct"
    if p.both is not None:
        one_sided = (p.only_up or 0) + (p.only_down or 0)
        text += f"; {p.only_up:,} with ups only, {p.only_down:,} with downs only, {p.both:,} with both"
        text += f" ({one_sided / p.distinct:.1%} one-sided)"
    return text


def _length_table(report: CheckReport) -> Table:
    from rich.table import Table

    table = Table("", "median", "95 %", "longest", box=None, padding=(0, 2, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"

    def add(unit: str, lengths: dict[str, Lengths]) -> None:
        for name, length in lengths.items():
            table.add_row(f"{name}, {unit}", f"{length.median:,.0f}", f"{length.p95:,.0f}", f"{length.longest:,}")

    add("characters", report.characters)
    add("tokens", report.tokens or {})
    return table
