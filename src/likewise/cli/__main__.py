"""`python -m likewise.cli`, which is what `accelerate launch -m likewise.cli align …` runs on every worker."""

from likewise.cli import main

main()
