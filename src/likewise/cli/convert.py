"""`likewise convert`: feedback of one kind, written as another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def convert(
    feedback: str,
    /,
    *,
    to: Literal["label", "pair", "rating"],
    output: Path,
    threshold: float | None = None,
    how: Literal["best_worst", "adjacent", "all", "matched"] | None = None,
    kind: Literal["label", "pair", "rating"] | None = None,
    columns: str | None = None,
    label_map: str | None = None,
    split: str = "train",
    skip_bad_rows: Annotated[bool, Parameter(negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Turn thumbs, pairs and ratings into each other, or any file into tidy JSON lines.

    Parameters
    ----------
    feedback
        A file (.jsonl, .json, .csv, .tsv, .parquet) or the name of a hub data set.
    to
        The kind to write; the kind the file already has gives a checked copy.
    output
        The JSON-lines file to write (.jsonl, or .jsonl.gz).
    threshold
        Ratings to thumbs: the lowest rating that counts as up. By default the top grade.
    how
        Ratings to pairs: best_worst (default), adjacent or all. Thumbs to pairs: matched (default) or all.
    kind
        The kind the file has, where its columns allow more than one.
    columns
        Names that differ in the file, as in prompt=question,completion=answer.
    label_map
        What the labels mean, as in yes=true,no=false.
    split
        Which split of a hub data set to read.
    skip_bad_rows
        Go on without bad rows; they are written beside the output, to OUTPUT.skipped.jsonl.
    overwrite
        Replace an output file that exists.
    """
    from likewise.data.convert import convert as convert_feedback
    from likewise.data.read import read_feedback
    from likewise.data.write import refuse_existing, write_rows
    from likewise.schema import plural

    refuse_existing(output, overwrite)
    skipped_to = output.with_name(output.name + ".skipped.jsonl")
    rows = read_feedback(
        feedback,
        kind=kind,
        columns=columns,
        label_map=label_map,
        split=split,
        skip_bad_rows=skip_bad_rows,
        skipped_to=skipped_to,
    )
    made, note = convert_feedback(rows, to, threshold=threshold, how=how)
    write_rows(made.rows, output, overwrite=overwrite)
    if rows.skipped:
        print(f"Skipped {plural(len(rows.skipped), 'bad row')}; listed in {skipped_to}.")
    print(note or f"The file holds {to} rows already: a checked copy.")
    print(f"Wrote {plural(len(made), 'row')} to {output}.")
