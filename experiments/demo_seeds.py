"""The demo over several seeds: each time another town, other people, another base model; true win rate, interval.

python experiments/demo_seeds.py [--seeds 5] [--objectives bco ...] [--work DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path


def run(objective: str, seed: int, work: Path) -> dict[str, float]:
    """One demo in a process of its own, so that its time and memory are its own."""
    folder = work / f"{objective}-{seed}"
    begun = time.perf_counter()
    command = [sys.executable, "-m", "likewise.cli", "demo", "--seed", str(seed), "--objective", objective]
    subprocess.run([*command, "--output-dir", str(folder)], check=True, stderr=subprocess.DEVNULL)
    record = json.loads((folder / "demo.json").read_text())
    rate = record["win_rate"]
    return {
        "seed": seed, "win_rate": rate["value"], "low": rate["low"], "high": rate["high"],
        "gain": record["mean_gain"]["value"], "seconds": time.perf_counter() - begun,
        "peak_gib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--objectives", nargs="+", default=["bco"])
    parser.add_argument("--work", type=Path, default=Path("demo-seeds"))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = {}
    print("| objective | seed | true win rate | 95 % interval | gain in true reward | seconds | peak memory, GiB |")
    print("|---|---|---|---|---|---|---|")
    for objective in asked.objectives:
        rows = []
        for seed in range(asked.seeds):
            row = run(objective, seed, asked.work)
            rows.append(row)
            print(
                f"| {objective} | {seed} | {row['win_rate']:.1%} | {row['low']:.1%} to {row['high']:.1%} "
                f"| {row['gain']:+.2f} | {row['seconds']:.0f} | {row['peak_gib']:.2f} |",
                flush=True,
            )
        rates = [row["win_rate"] for row in rows]
        spread = statistics.stdev(rates) if len(rates) > 1 else float("nan")
        print(f"| {objective} | mean | {statistics.mean(rates):.1%} | lowest {min(rates):.1%}, sd {spread:.1%} | | | |")
        found[objective] = rows
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
