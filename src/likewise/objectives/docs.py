"""What a person reads about objectives, made from docstrings and signatures: `docs/objectives.md` and the CLI pages.

`python -m likewise.objectives.docs > docs/objectives.md` writes the page anew.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import Any

from likewise.objectives.objective import Objective
from likewise.objectives.options import declared_options
from likewise.objectives.table import OBJECTIVES

FEEDBACK = {
    "label": "thumbs: prompt, completion, label",
    "pair": "pairs: prompt, chosen, rejected",
    "group": "ratings: several rated completions of one prompt",
}
NEEDS = {
    "reference": "log-probs of a reference model",
    "mismatched": "completions of other prompts in the step",
}

INTRO = """\
# Objectives

Made from the docstrings by `python -m likewise.objectives.docs > docs/objectives.md`; a test keeps the two equal.
`likewise objectives NAME` shows the same in a terminal.

Log-probs (`log π`) are sums over the tokens of a completion, in nats, the end token counted and the prompt not. A loss
is one number a row; the trainer takes the weighted mean over the whole step, however the step is cut.
"""


def facts(objective: Objective) -> dict[str, Any]:
    """What there is to say about an objective, as plain data; a text that its docstring lacks is ''."""
    sections = read_sections(objective.function)
    meanings = _entries(sections.get("Options", ""))
    described = read_sections(objective.description) if objective.description else {}
    return {
        "name": objective.name,
        "summary": _line(sections.get("", "")),
        "feedback": objective.feedback,
        "data": FEEDBACK[objective.feedback],
        "needs": sorted(objective.needs),
        "formula": _line(sections.get("Formula", "")).removesuffix("."),
        "state": _line(sections.get("State", "")),
        "units": _line(sections.get("Units", "")),
        "options": [
            {
                "name": option.name,
                "default": option.default,
                "accepts": option.accepts,
                "meaning": meanings.get(option.name, ""),
            }
            for option in declared_options(objective.function)
        ],
        "logged": _line(described.get("", "")),
        "notes": _line(sections.get("Notes", "")),
        "source": _line(sections.get("Source", "")),
    }


def read_sections(function: Any) -> dict[str, str]:
    """A docstring by its 'Word:' headings at the margin; what stands before the first one is under ''."""
    found: dict[str, str] = {"": ""}
    heading = ""
    for line in (inspect.getdoc(function) or "").splitlines():
        start = re.match(r"([A-Z][a-z]+): ?(.*)", line)
        if start:
            heading, line = start.groups()
        found[heading] = found.get(heading, "") + line + "\n"
    return found


def _entries(section: str) -> dict[str, str]:
    """The 'name: text' entries of a section; a line indented further continues the one before."""
    entries: dict[str, str] = {}
    name = ""
    for line in textwrap.dedent(section.lstrip("\n")).splitlines():
        start = re.match(r"(\w+): (.*)", line)
        if start:
            name, line = start.groups()
        if name:
            entries[name] = _line(entries.get(name, "") + " " + line)
    return entries


def _line(text: str) -> str:
    return " ".join(text.split())


def render() -> str:
    """The whole page `docs/objectives.md`."""
    every = [facts(objective) for objective in OBJECTIVES.values()]
    rows = [f"| [{f['name']}](#{f['name']}) | {f['feedback']} | {f['summary']} |" for f in every]
    table = "\n".join(["| name | learns from | in one line |", "|---|---|---|", *rows]) + "\n"
    return "\n".join([INTRO, table, *map(_page, every)])


def _page(f: dict[str, Any]) -> str:
    lines = [f"## {f['name']}", "", f["summary"], "", "```text", *f["formula"].split("; "), "```", ""]
    lines += [f"- **Learns from** {f['data']}"]
    lines += [f"- **Needs** {', '.join(NEEDS[need] for need in f['needs'])}"] if f["needs"] else []
    for key, title in [
        ("state", "Keeps"),
        ("units", "Units"),
        ("logged", "Logs"),
        ("notes", "Notes"),
        ("source", "Source"),
    ]:
        lines += [f"- **{title}** {f[key]}"] if f[key] else []
    if f["options"]:
        lines += ["", "| option | default | accepts | meaning |", "|---|---|---|---|"]
        lines += [f"| `{o['name']}` | {o['default']} | {o['accepts']} | {o['meaning']} |" for o in f["options"]]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    print(render(), end="")
