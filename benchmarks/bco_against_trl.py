"""likewise against the BCO trainer of TRL 1.13.0: same model, same rows, same machine, one after the other.

    python benchmarks/bco_against_trl.py                     the whole comparison: 3 runs each, alternating
    python benchmarks/bco_against_trl.py --rows 64 --runs 1  a quick look
    python benchmarks/bco_against_trl.py --without-likewise --trl batch-8 --trl batch-8-live-reference --rows 64

Run it with the Python that has likewise installed. TRL gets an environment of its own beside this file, built on the
first call. Each run is a process of its own; figures go to benchmarks/results/ as JSON and to stdout as a table.
What is measured, what is held equal and what cannot be is written down in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WORK = HERE / ".work"
RESULTS = HERE / "results"
SHARED = HERE.parent.parent / "shared" / "data"
TRL_VERSION = "1.13.0"
TRL_ENVIRONMENT = HERE / ".envs" / f"trl-{TRL_VERSION}"

# TRL's knobs for speed and memory. All runs are float32; its defaults would be bfloat16 with gradient checkpointing.
# A batch of 8 as it stands is what its user writes; cut into accumulated micro-batches it pads less and holds fewer
# logits, and its reward shift, which it moves at every micro-batch, takes another path: another result.
TRL_SETTINGS = {
    "batch-8": {"micro_batch": 8, "precompute": True, "gradient_checkpointing": False},
    "batch-8-live-reference": {"micro_batch": 8, "precompute": False, "gradient_checkpointing": False},
    "batch-8-checkpointing": {"micro_batch": 8, "precompute": True, "gradient_checkpointing": True},
    "accumulate-4x2": {"micro_batch": 4, "precompute": True, "gradient_checkpointing": False},
    "accumulate-2x4": {"micro_batch": 2, "precompute": True, "gradient_checkpointing": False},
    "accumulate-1x8": {"micro_batch": 1, "precompute": True, "gradient_checkpointing": False},
}


@dataclass(frozen=True)
class Side:
    """One of the things compared: a library, the interpreter that has it, and its own settings."""

    name: str
    library: str
    python: Path
    settings: dict[str, Any]


@dataclass(frozen=True)
class World:
    """What both sides read: one model on disk, one file of rows, and how the rows came to be."""

    model: Path
    rows: Path
    parameters: int
    row_facts: dict[str, int]


# --- environments -----------------------------------------------------------------------------------------------


def trl_python(given: str | None) -> Path:
    """The interpreter that has TRL: the one given, the one built earlier, or one built now."""
    if given:
        return Path(given)
    python = TRL_ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists() or subprocess.run([python, "-c", "import trl.experimental.bco"], check=False).returncode:
        build_trl_environment(python)
    return python


def build_trl_environment(python: Path) -> None:
    """TRL in its own environment, on the same torch and transformers as likewise: trainers are compared, not those."""
    print(f"building TRL {TRL_VERSION}'s environment", file=sys.stderr)
    shutil.rmtree(TRL_ENVIRONMENT, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", TRL_ENVIRONMENT], check=True)
    same = {name: importlib.metadata.version(name).split("+")[0] for name in ("torch", "transformers", "accelerate")}
    install = [python, "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, f"torch=={same['torch']}"], check=True)
    rest = [f"{name}=={version}" for name, version in same.items() if name != "torch"]
    # pandas is imported by its BCO trainer and not among the requirements of every release
    subprocess.run([*install, f"trl=={TRL_VERSION}", *rest, "pandas"], check=True)


# --- what both sides read ---------------------------------------------------------------------------------------


def build_world(args: argparse.Namespace) -> World:
    from transformers import AutoTokenizer

    folder = WORK / f"seed-{args.seed}{'' if args.tied else '-untied'}"
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    model, parameters = save_model(folder / "model", tokenizer, seed=args.seed, tied=args.tied)
    rows, facts = text_rows(args.feedback, tokenizer, args.max_tokens, args.max_prompt_tokens)
    random.Random(args.seed).shuffle(rows)
    wanted = args.steps * args.batch_size if args.steps else args.rows
    rows = rows[: wanted or None]
    facts["used"] = len(rows)
    facts["desirable"] = sum(row["label"] for row in rows)
    path = folder / f"rows-{len(rows)}.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return World(model=model, rows=path, parameters=parameters, row_facts=facts)


def save_model(folder: Path, tokenizer: Any, *, seed: int, tied: bool) -> tuple[Path, int]:
    """A Llama of 6 layers x 384 with random weights, saved once, so that both sides load the same numbers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=50304,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=2048,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, sum(parameter.numel() for parameter in model.parameters())


def text_rows(
    feedback: Path, tokenizer: Any, max_tokens: int, max_prompt_tokens: int
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The thumbs as plain text that fits the limits, so that neither side has anything left to cut in its own way.

    TRL 1.13.0 cuts only completions and has no limit for prompts: a longer prompt would eat its completion and still
    go over `max_length`. So over-long prompts lose their oldest turns here, then their oldest tokens.
    """
    facts = {"read": 0, "empty_completion_dropped": 0, "prompt_trimmed": 0, "completion_cut": 0}
    rows = []
    for line in feedback.read_text().splitlines():
        row = json.loads(line)
        facts["read"] += 1
        completion = row["completion"][-1]["content"]
        if not completion.strip():
            facts["empty_completion_dropped"] += 1
            continue
        prompt, trimmed = fit_prompt(row["prompt"], tokenizer, max_prompt_tokens)
        room = max_tokens - len(tokenizer(prompt)["input_ids"]) - 1  # one for the end token
        fitted = head_of(completion, tokenizer, room)
        facts["prompt_trimmed"] += trimmed
        facts["completion_cut"] += fitted != completion
        rows.append({"id": row["id"], "prompt": prompt, "completion": fitted, "label": bool(row["label"])})
    return rows, facts


def fit_prompt(messages: list[dict[str, str]], tokenizer: Any, limit: int) -> tuple[str, bool]:
    trimmed = False
    while True:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        encoded = tokenizer(text, return_offsets_mapping=True)
        if len(encoded["input_ids"]) <= limit:
            return text, trimmed
        trimmed = True
        if len(messages) == 1:
            return text[encoded["offset_mapping"][-limit][0] :], trimmed
        messages = messages[1:]


def head_of(text: str, tokenizer: Any, limit: int) -> str:
    encoded = tokenizer(text, return_offsets_mapping=True)
    return text if len(encoded["input_ids"]) <= limit else text[: encoded["offset_mapping"][limit - 1][1]]


# --- runs -------------------------------------------------------------------------------------------------------


def run(side: Side, job: dict[str, Any], name: str) -> dict[str, Any]:
    """One run in a process of its own; what it prints goes to a log beside its job file."""
    folder = WORK / "runs" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    job = {**job, "settings": side.settings, "output_dir": str(folder / "out")}
    (folder / "job.json").write_text(json.dumps(job, indent=1))
    environment = os.environ | {
        "OMP_NUM_THREADS": str(job["threads"]),
        "MKL_NUM_THREADS": str(job["threads"]),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "cache"),
    }
    command = [side.python, HERE / f"{side.library}_bco_worker.py", folder / "job.json", folder / "result.json"]
    load = os.getloadavg()[0]
    with (folder / "log.txt").open("w") as log:
        done = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False)
    if done.returncode:
        tail = "\n".join((folder / "log.txt").read_text().splitlines()[-15:])
        raise SystemExit(f"{side.name} failed; the end of its log:\n{tail}")
    result = json.loads((folder / "result.json").read_text())
    for leftover in ("out", "reference-cache", "cache"):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    result["machine_load_before"] = load
    result["examples_per_second"] = result["examples"] / result["seconds"]["job"]
    result["examples_per_second_with_load"] = result["examples"] / result["seconds"]["job_and_load"]
    print(
        f"{name}: {result['examples_per_second']:.2f} examples/s, {result['seconds']['job']:.1f} s,"
        f" peak {result['peak_rss_bytes'] / 2**20:.0f} MiB",
        file=sys.stderr,
        flush=True,
    )
    return result


def job_of(args: argparse.Namespace, world: World) -> dict[str, Any]:
    return {
        "model": str(world.model),
        "rows": str(world.rows),
        "shift": "running",
        "beta": args.beta,
        "learning_rate": args.learning_rate,
        "schedule": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "batch_size": args.batch_size,
        "max_tokens": args.max_tokens,
        "max_prompt_tokens": args.max_prompt_tokens,
        "threads": args.threads,
        "seed": args.seed,
    }


def alternating_runs(sides: list[Side], job: dict[str, Any], count: int) -> dict[str, list[dict[str, Any]]]:
    runs: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
    for number in range(count):
        for side in sides:
            runs[side.name].append(without_hashes(run(side, job, f"{side.name}-{number + 1}")))
    return runs


def same_losses(trl: Side, likewise: Side, job: dict[str, Any], rows: int) -> dict[str, Any]:
    """Both with the shift at 0 and classes unweighted: then the formulas are one, and so must be the step losses."""
    source = Path(job["rows"])
    short = source.with_name(f"losses-{rows}.jsonl")
    short.write_text("".join(source.read_text().splitlines(keepends=True)[:rows]))
    job = {**job, "rows": str(short), "shift": "zero"}
    theirs, ours = (run(side, job, f"{side.name}-losses") for side in (trl, likewise))
    pairs = list(zip(theirs["step_losses"], ours["step_losses"], strict=True))
    hashes = theirs["tokens"]["row_hashes"], ours["tokens"]["row_hashes"]
    return {
        "rows": rows,
        "steps": len(pairs),
        "rows_with_equal_tokens": sum(hashes[0][row] == hashes[1].get(row) for row in hashes[0]),
        "largest_relative_difference": max(abs(a - b) / abs(a) for a, b in pairs),
        "trl": theirs["step_losses"],
        "likewise": ours["step_losses"],
    }


# --- figures ----------------------------------------------------------------------------------------------------


def without_hashes(result: dict[str, Any]) -> dict[str, Any]:
    tokens = {key: value for key, value in result["tokens"].items() if key != "row_hashes"}
    return {**result, "tokens": tokens}


def middle(runs: list[dict[str, Any]], figure: str) -> float:
    return statistics.median(run[figure] for run in runs)


def ratios(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, Any]:
    """likewise over one of TRL's settings: of medians, and of each pair of runs that stood next to each other."""
    return {
        figure: middle(ours, figure) / middle(theirs, figure)
        for figure in ("examples_per_second", "examples_per_second_with_load", "peak_rss_bytes")
    } | {
        "examples_per_second_of_each_pair": [
            a["examples_per_second"] / b["examples_per_second"] for a, b in zip(ours, theirs, strict=True)
        ]
    }


def hardware(threads: int) -> dict[str, Any]:
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def table(record: dict[str, Any]) -> str:
    lines = [
        "| | examples/s, median (runs) | with load | job, s | peak memory, MiB | computed positions |",
        "|---|---|---|---|---|---|",
    ]
    for name, runs in record["runs"].items():
        each = ", ".join(f"{run['examples_per_second']:.2f}" for run in runs)
        cells = [
            name,
            f"{middle(runs, 'examples_per_second'):.2f} ({each})",
            f"{middle(runs, 'examples_per_second_with_load'):.2f}",
            f"{statistics.median(run['seconds']['job'] for run in runs):.1f}",
            f"{middle(runs, 'peak_rss_bytes') / 2**20:.0f}",
            f"{runs[0]['computed_positions']}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    for name, ratio in record.get("ratios", {}).items():
        speed, loaded = ratio["examples_per_second"], ratio["examples_per_second_with_load"]
        lines.append(f"| likewise / {name} | {speed:.2f} | {loaded:.2f} | | {ratio['peak_rss_bytes']:.3f} | |")
    if "same_losses" in record:
        same = record["same_losses"]
        lines.append(
            f"\nShift at 0 on both sides, {same['steps']} steps: token ids equal in {same['rows_with_equal_tokens']} of"
            f" {same['rows']} rows, step losses within {same['largest_relative_difference']:.1e} (relative)."
        )
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="runs of each side, alternating (default 3)")
    parser.add_argument("--rows", type=int, help="use only this many rows")
    parser.add_argument("--steps", type=int, help="use only as many rows as fill this many steps")
    parser.add_argument("--trl-python", help="an interpreter that already has TRL, instead of building one")
    parser.add_argument(
        "--trl",
        action="append",
        choices=TRL_SETTINGS,
        help="a setting of TRL to run, may be repeated (default: batch-8 and accumulate-1x8)",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="an option of likewise.align, may be repeated"
    )
    parser.add_argument("--without-likewise", action="store_true", help="run TRL alone")
    parser.add_argument("--without-trl", action="store_true", help="run likewise alone")
    parser.add_argument("--losses", type=int, default=160, help="rows for the comparison of step losses; 0: none")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--max-prompt-tokens", type=int, default=384)
    parser.add_argument("--tied", action=argparse.BooleanOptionalAction, default=True, help="tie the embeddings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--feedback", type=Path, default=SHARED / "hh_harmless" / "feedback.jsonl")
    parser.add_argument("--tokenizer", type=Path, default=SHARED / "tokenizers" / "pythia")
    parser.add_argument("--results", type=Path, help="where the JSON goes (default benchmarks/results/, by date)")
    return parser.parse_args()


def sides_of(args: argparse.Namespace) -> list[Side]:
    sides = []
    if not args.without_trl:
        python = trl_python(args.trl_python)
        names = args.trl or ["batch-8", "accumulate-1x8"]
        sides += [Side(f"trl {name}", "trl", python, TRL_SETTINGS[name]) for name in names]
    if not args.without_likewise:
        options = {key: json.loads(value) for key, value in (given.split("=", 1) for given in args.set)}
        sides.append(Side("likewise", "likewise", Path(sys.executable), options))
    return sides


def main() -> None:
    args = parse_arguments()
    if not args.feedback.exists():
        raise SystemExit(f"{args.feedback.name} is not there; give --feedback and --tokenizer")
    sides = sides_of(args)
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    world = build_world(args)
    job = job_of(args, world)
    record: dict[str, Any] = {
        "date": date,
        "hardware": hardware(args.threads),
        "model": {"parameters": world.parameters, "tied_embeddings": args.tied},
        "rows": world.row_facts,
        "job": {key: value for key, value in job.items() if key not in ("model", "rows")},
    }
    ours = next((side for side in sides if side.library == "likewise"), None)
    theirs = [side for side in sides if side.library == "trl"]
    if args.losses and ours and theirs:
        record["same_losses"] = same_losses(theirs[0], ours, job, min(args.losses, world.row_facts["used"]))
    record["runs"] = alternating_runs(sides, job, args.runs)
    if ours:
        record["ratios"] = {side.name: ratios(record["runs"][ours.name], record["runs"][side.name]) for side in theirs}
    path = args.results or RESULTS / f"bco_against_trl-{date[:10]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))


if __name__ == "__main__":
    main()
