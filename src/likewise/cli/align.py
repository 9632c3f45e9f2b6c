"""`likewise align`: its flags are the keys of `AlignConfig`, and every option of the objective is a flag too."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from likewise.engine.config import AlignConfig, read_config

_HIDDEN = {"options"}


def align(*, config: Path | None = None, quiet: bool = False, **given: Any) -> None:
    """Align a language model with people's feedback.

    Any option of the objective is a flag too (--beta 0.2); `likewise objectives NAME` lists them. Several workers:
    accelerate launch --num_processes 2 -m likewise.cli align ...
    """
    from likewise.engine import align as run
    from likewise.engine.config import make_config
    from likewise.engine.progress import Reporter
    from likewise.engine.workers import leave_workers

    values = read_config(config) if config is not None else {}
    values |= {key: value for key, value in given.items() if value is not None}
    for key in ("label_map", "columns"):
        if isinstance(values.get(key), str):
            values[key] = _pairs(key, values[key])
    checked = make_config(values)
    keys = checked.model_dump(exclude={"model", "feedback", "objective"})
    try:
        run(checked.model, checked.feedback, checked.objective, reporter=Reporter(quiet=quiet), **keys)
    finally:
        leave_workers()


def _pairs(key: str, text: str) -> dict[str, Any]:
    """`a=b,c=d` as a dict; the values of a label map are true or false."""
    from likewise.errors import BadConfig

    pairs = [part.split("=", 1) for part in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        example = "yes=true,no=false" if key == "label_map" else "prompt=question,completion=answer"
        raise BadConfig(f"{key} is {text!r}; expected NAME=VALUE,NAME=VALUE, such as {example}.")
    return {name.strip(): value.strip() for name, value in pairs}


def _signature() -> inspect.Signature:
    """Every key of the configuration as an optional flag; what is not given stays with the file or the default."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(
            "config", keyword, default=None,
            annotation=Annotated[Path | None, Parameter(help="a YAML file with any of these keys; flags win")],
        )
    ]  # fmt: skip
    for name, field in AlignConfig.model_fields.items():
        if name in _HIDDEN:
            continue
        kind: Any = field.annotation
        if name in ("label_map", "columns"):
            kind = str
        required = field.is_required()
        default = "" if required or field.default is None else f" [default: {_plain(field.default)}]"
        negative = "" if field.annotation is bool and not field.default else None
        parameters.append(
            inspect.Parameter(
                name, keyword, default=None,
                annotation=Annotated[
                    kind | None,
                    Parameter(help=f"{field.description}{default}", show_default=False, negative=negative),
                ],
            )
        )  # fmt: skip
    quiet = Annotated[bool, Parameter(help="print warnings and errors alone", negative="")]
    parameters.append(inspect.Parameter("quiet", keyword, default=False, annotation=quiet))
    parameters.append(
        inspect.Parameter(
            "objective_options",
            inspect.Parameter.VAR_KEYWORD,
            annotation=Annotated[str, Parameter(help="an option of the objective", show=False)],
        )
    )
    return inspect.Signature(parameters, return_annotation=None)


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


_SIGNATURE = _signature()
align.__signature__ = _SIGNATURE  # type: ignore[attr-defined]
align.__annotations__ = {name: p.annotation for name, p in _SIGNATURE.parameters.items()}
