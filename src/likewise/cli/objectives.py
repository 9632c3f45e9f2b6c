"""`likewise objectives [NAME]`: what can be trained, with formulas, options and the data each one needs."""

from __future__ import annotations

from typing import Any


def objectives(name: str | None = None, *, json: bool = False) -> None:
    """List the objectives, or show one of them in full.

    Parameters
    ----------
    name
        An objective, for its formula, options with defaults, data needed and paper.
    json
        Print JSON instead of a table.
    """
    # Here, not above: the objectives need torch, and --help must not wait for it.
    from likewise.objectives import OBJECTIVES, get_objective
    from likewise.objectives.docs import facts

    if name is not None:
        page = facts(get_objective(name))
        _print_json(page) if json else _print_page(page)
    else:
        every = [facts(objective) for objective in OBJECTIVES.values()]
        _print_json(every) if json else _print_table(every)


def _print_json(value: Any) -> None:
    import json

    print(json.dumps(value, indent=2, ensure_ascii=False))


def _print_table(every: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("objective", "learns from", "in one line", box=None, padding=(0, 2, 0, 0))
    for page in every:
        table.add_row(Text(page["name"], style="bold"), page["feedback"], Text(page["summary"]))
    console = Console()
    console.print(table)
    console.print("\nlikewise objectives NAME shows one in full.", style="dim", highlight=False)


def _print_page(page: dict[str, Any]) -> None:
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

    from likewise.objectives.docs import NEEDS

    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    needed = ", ".join(NEEDS[need] for need in page["needs"])
    shown = [("learns from", page["data"]), ("needs", needed)]
    shown += [(title, page[key]) for title, key in _TITLES.items()]
    for label, text in shown:
        if text:
            facts.add_row(label, Text(text))
    options = Table("option", "default", "accepts", "meaning", box=None, padding=(0, 2, 0, 0))
    for option in page["options"]:
        options.add_row(
            Text(option["name"], style="bold"),
            Text(str(option["default"])),
            Text(option["accepts"]),
            Text(option["meaning"]),
        )
    formula = Text("\n".join("    " + line for line in page["formula"].split("; ")))
    title = Text.assemble((page["name"], "bold"), "  ", page["summary"])
    Console().print(Group(title, Text(), formula, Text(), facts))
    if page["options"]:
        Console().print(Group(Text(), options))


_TITLES = {"keeps": "state", "units": "units", "logs": "logged", "notes": "notes", "source": "source"}
