"""Lets the tests of this folder import the records of a made-up run by name."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
