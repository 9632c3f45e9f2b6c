"""The command line: one file a command, imported when it is called, so that help answers at once."""

from __future__ import annotations

import os
import sys

from cyclopts import App, CycloptsError
from cyclopts.help import DefaultFormatter, PanelSpec

from likewise import __version__
from likewise.errors import LikewiseError

app = App(
    name="likewise",
    help="Turn the thumbs-up and thumbs-down people already give into a better language model.",
    version=__version__,
    help_formatter=DefaultFormatter(panel_spec=PanelSpec(border_style="dim")),
)
# The words stand here because the modules are not imported until their command is called.
COMMANDS = {
    "demo": "The whole path on made-up people: no network, no GPU, a few minutes, ends in a report.",
    "check": "Is this feedback fit to learn from? Counts, lengths, doubtful rows, and a verdict in words.",
    "align": "Align a language model with people's feedback.",
    "sample": "Answer prompts with a model.",
    "convert": "Turn thumbs, pairs and ratings into each other.",
    "objectives": "What can be trained: formulas, options, data needed, papers.",
}
for name, words in COMMANDS.items():
    app.command(f"likewise.cli.{name}:{name}", name=name, help=words)


def main() -> None:
    """Run one command. Exit codes: 0 done, 1 a defect of likewise, 2 something the user can mend, 130 interrupted."""
    # Set before torch or tokenizers are imported: neither should print its own warnings into ours.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        command = " ".join(["likewise", *(error.command_chain or [])])
        print(f"\n{error}\n`{command} --help` lists what there is.", file=sys.stderr)
        sys.exit(2)
    except LikewiseError as error:
        print(f"\n{error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nInterrupted. What was saved is whole; `likewise align` goes on with --resume.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
