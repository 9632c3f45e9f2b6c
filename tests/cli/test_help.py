"""Help answers at once: nothing heavy is imported before a command runs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from likewise.cli import COMMANDS

HEAVY = {"torch", "transformers", "datasets", "sklearn", "plotly", "accelerate", "peft", "numpy"}


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_heavy(command):
    code = (
        "import sys; from likewise.cli import main; sys.argv = ['likewise', *sys.argv[1:], '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print('heavy:', sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split()], capture_output=True, text=True, check=True, timeout=60
    )
    assert "Usage: likewise" in done.stdout
    assert done.stdout.strip().endswith("heavy: []")


def test_every_option_of_a_run_has_a_flag_and_words():
    from likewise.engine.config import AlignConfig

    command = [sys.executable, "-m", "likewise.cli", "align", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    for name, field in AlignConfig.model_fields.items():
        if name != "options":
            assert f"--{name.replace('_', '-')}" in done.stdout
            assert field.description
