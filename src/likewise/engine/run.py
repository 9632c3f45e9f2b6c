"""`align`: from feedback and a model to an aligned model and the records of how it came about."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from likewise.data.convert import convert
from likewise.data.read import read_feedback, write_skipped
from likewise.data.tokens import TokenizedFeedback, tokenize_feedback
from likewise.engine import derive
from likewise.engine.checkpoint import Checkpoints
from likewise.engine.config import AlignConfig, make_config, write_config
from likewise.engine.files import clear_temporary, saving, write_text
from likewise.engine.heap import give_back_large_blocks
from likewise.engine.heldout import HeldOut, measure, split
from likewise.engine.logps import LogProbModel, wrap
from likewise.engine.models import add_adapter, fingerprint, fits, load_model, load_tokenizer
from likewise.engine.output import save_model
from likewise.engine.plan import Schedule
from likewise.engine.progress import Reporter, Setting
from likewise.engine.reference import CachedReference, LiveReference, ReferenceCache, default_cache_dir
from likewise.engine.sequences import Mismatched, Sequences, digest_of, own_sequences
from likewise.engine.summary import Summary, summarise
from likewise.engine.trainer import Metrics, Scorer, Trainer
from likewise.engine.workers import is_sharded, join_workers, prepare
from likewise.errors import BadConfig, BadFeedback
from likewise.evaluate.sample import sample
from likewise.objectives import Objective, get_objective
from likewise.report.run_page import SamplePair, Verdict, run_page
from likewise.schema import Content, Feedback, plural

_SKIPPED = "skipped_rows.jsonl"


@dataclass(frozen=True)
class AlignResult:
    """What a run leaves: the aligned model (in memory where it is not sharded), its records, and what they say."""

    output_dir: Path
    model: Any
    tokenizer: Any
    metrics: list[Metrics]
    summary: Summary
    heldout: HeldOut | None
    config: AlignConfig
    settings: list[Setting]
    facts: dict[str, Any]
    samples: list[SamplePair] = field(default_factory=list)

    def page(self, *, verdict: Verdict | None = None, samples: list[SamplePair] | None = None) -> str:
        """The run as one self-contained HTML page."""
        return run_page(
            self.config,
            self.settings,
            self.metrics,
            self.summary,
            self.heldout,
            self.samples if samples is None else samples,
            self.facts,
            verdict=verdict,
        )


def align(
    model: str | Any,
    feedback: str | Path | Feedback | Iterable[dict[str, Any]],
    objective: str = "bco",
    *,
    tokenizer: Any = None,
    reporter: Reporter | None = None,
    **config: Any,
) -> AlignResult:
    """Align a language model with people's feedback, and write it to `output_dir`.

    `model` is a folder, a hub name, or a transformers model (which is then trained in place and needs `tokenizer`);
    `feedback` a file, a hub data set, `read_feedback`'s result, or an iterable of rows. The keywords are those of
    `AlignConfig` and of the objective: `align("m", "thumbs.jsonl", output_dir="out", lora_rank=16, beta=0.2)`.
    Raises: LikewiseError of some kind for everything the user can mend.
    """
    values = dict(config, objective=objective)
    values["model"] = model if isinstance(model, str | Path) else getattr(model.config, "_name_or_path", "") or "given"
    values["model"] = str(values["model"])
    values["feedback"] = str(feedback) if isinstance(feedback, str | Path) else "given rows"
    if isinstance(tokenizer, str | Path):
        values["tokenizer"], tokenizer = str(tokenizer), None
    settings = make_config(values)
    run = _Run(settings, reporter)
    return run.align(
        None if isinstance(model, str | Path) else model,
        tokenizer,
        settings.feedback if isinstance(feedback, str | Path) else feedback,
    )


class _Run:
    """One run, stage by stage; what several stages need stands on it."""

    def __init__(self, config: AlignConfig, reporter: Reporter | None) -> None:
        self.config = config
        self.objective: Objective = get_objective(config.objective)
        give_back_large_blocks()
        self.accelerator = join_workers(config.dtype)
        self.sharded = is_sharded(self.accelerator)
        self.main = bool(self.accelerator.is_main_process)
        self.reporter = (reporter or Reporter()) if self.main else Reporter(quiet=True)
        self.output_dir = config.output_dir

    def align(self, model: Any, tokenizer: Any, source: Any) -> AlignResult:
        begun = time.perf_counter()
        config, reporter = self.config, self.reporter
        self._check_output()
        reporter.title(f"likewise align: {config.objective} on {config.feedback}")
        feedback = self._read(source)
        tokenizer = tokenizer or self._tokenizer(model)
        tokens = self._tokenize(feedback, tokenizer)
        train, held = split(tokens, config.holdout, config.seed)
        weight, pool, balance = derive.example_weights(config, self.objective, tokens, train)
        if not len(pool):
            raise BadFeedback(f"{tokens.source}: no row is left to learn from after the checks above.")

        causal = model if model is not None else self._load()
        fits(causal, tokenizer)
        identity = self._identity(causal, tokens, train)
        prompts = self._sample_prompts(feedback, tokens, held if len(held) else train)
        base_answers = self._sample(causal, tokenizer, tokens, prompts, "base model answers")
        parameters = sum(p.numel() for p in causal.parameters())
        if config.lora_rank:
            causal = add_adapter(causal, config)
        causal.to(self.accelerator.device)
        wrapped, line = wrap(causal, prefer_packed=self._prefer_packed())
        if line and config.layout != "padded":
            reporter.note(line)
        if config.gradient_checkpointing:
            wrapped.language_model.gradient_checkpointing_enable({"use_reentrant": False})
            wrapped.train()  # transformers checkpoints in training mode only; dropout is off all the same

        size = derive.batch_size(config, len(pool))
        rate = derive.learning_rate(config, parameters)
        schedule = Schedule(pool, size.value, config.epochs, config.seed, config.max_steps, config.shuffle)
        sequences = Sequences.of(tokens)
        mismatched = None
        if "mismatched" in self.objective.needs:
            mismatched, sequences = Mismatched.draw(tokens, schedule, sequences, config.max_tokens)
        micro = derive.tokens_per_microbatch(config, causal, self.accelerator.device, int(sequences.lengths.max()))
        every = derive.checkpoint_every(config, schedule.steps)
        settings = [*derive.paper_settings(config, self.objective), size, rate, *([balance] if balance else []), micro]
        settings += [every, self._model_setting(causal, parameters), self._reference_setting()]
        reporter.settings(settings)
        self.config = config = config.model_copy(
            update={"batch_size": size.value, "learning_rate": rate.value, "checkpoint_every": every.value}
        )
        # As they came out, so that a run may be resumed with its own run.yaml, which says them.
        identity["settings"] |= {"batch_size": size.value, "learning_rate": rate.value}
        checkpoints = Checkpoints(self.output_dir, keep=config.keep_checkpoints)
        if config.resume:
            checkpoints.check(identity)
        self._start_output(feedback)

        if self.accelerator.num_processes == 1:
            wrapped.add_gradients_directly()
        prepared, optimizer = prepare(self.accelerator, wrapped, self._optimizer)
        scorer = Scorer(
            prepared,
            self.accelerator,
            packed=wrapped.packed,
            tokens_per_microbatch=micro.value,
            pad_token=tokenizer.pad_token_id,
        )
        needed = self._needed(tokens, sequences, schedule, held, mismatched)
        reference = self._reference(scorer, sequences, wrapped, identity["model"], needed)
        trainer = Trainer(
            config, self.objective, tokens, sequences, mismatched, schedule, weight, scorer, optimizer, reference,
            checkpoints, identity, rate.value, every.value, self.sharded,
        )  # fmt: skip
        metrics = self._train(trainer)

        heldout = self._held_out(trainer, held) if len(held) else None
        self.accelerator.wait_for_everyone()
        final = save_model(self.accelerator, prepared, wrapped, tokenizer, config, self.output_dir, self.sharded)
        answers = self._sample(final, tokenizer, tokens, prompts, "aligned model answers")
        pairs = [SamplePair(p, b, a) for p, b, a in zip(prompts, base_answers, answers)]
        summary = summarise(metrics, self.objective, heldout, time.perf_counter() - begun)
        facts = self._facts(feedback, tokens, train, held)
        result = AlignResult(
            self.output_dir, final, tokenizer, metrics, summary, heldout, config, settings, facts, pairs
        )
        if self.main:
            self._write_records(result)
        self.accelerator.wait_for_everyone()
        return result

    # -- before training ----------------------------------------------------------------------------------------------

    def _check_output(self) -> None:
        folder = self.output_dir
        if folder.exists() and not folder.is_dir():
            raise BadConfig(f"{folder}: is a file; --output-dir must be a folder.")
        if not self.config.resume and folder.is_dir() and any(folder.iterdir()):
            raise BadConfig(
                f"{folder}: is not empty, and nothing in it is overwritten.\n"
                "Give another --output-dir, or --resume to go on with the run that is there."
            )
        self.accelerator.wait_for_everyone()
        with saving(folder):
            folder.mkdir(parents=True, exist_ok=True)
            # Found out now rather than after hours of work.
            write_text(folder / ".writable", "")
            (folder / ".writable").unlink(missing_ok=True)
        # The first worker soon clears temporary files away: not those of a slower one that is still here.
        self.accelerator.wait_for_everyone()

    def _read(self, source: Any) -> Feedback:
        config = self.config
        feedback = read_feedback(
            source,
            label_map=config.label_map,
            columns=config.columns,
            split=config.split,
            skip_bad_rows=config.skip_bad_rows,
        )
        self.reporter.note(f"read {len(feedback):,} rows ({feedback.kind})")
        if feedback.skipped:
            self.reporter.warn(f"{plural(len(feedback.skipped), 'bad row')} left out; see {self.output_dir / _SKIPPED}")
        options: dict[str, Any] = {}
        if feedback.kind == "rating":
            if self.objective.feedback == "label" and config.rating_threshold is not None:
                options["threshold"] = config.rating_threshold
            if self.objective.feedback == "pair":
                options["how"] = config.pairs_from
        converted, line = convert(feedback, self.objective.feedback, **options)
        if line:
            self.reporter.note(line)
        return converted

    def _tokenizer(self, model: Any) -> Any:
        config = self.config
        if model is not None and config.tokenizer is None:
            raise BadConfig("a model given as an object needs its tokenizer too: align(model, rows, tokenizer=...)")
        return load_tokenizer(
            config.tokenizer or config.model,
            chat_template=config.chat_template,
            trust_remote_code=config.trust_remote_code,
        )

    def _tokenize(self, feedback: Feedback, tokenizer: Any) -> TokenizedFeedback:
        config = self.config
        with self.reporter.phase("tokenized rows", len(feedback)) as advance:
            tokens = tokenize_feedback(
                feedback,
                tokenizer,
                max_tokens=config.max_tokens,
                max_prompt_tokens=config.max_prompt_tokens,
                long_completions=config.long_completions,
                as_chat=config.as_chat,
                progress=advance,
            )
        trimmed, skipped = len(tokens.trimmed_prompts), len(tokens.skipped)
        self.reporter.note(
            f"{len(tokens):,} examples, {int(tokens.prompt_lengths.sum() + tokens.completion_lengths.sum()):,} tokens; "
            f"{trimmed:,} prompts lost their oldest turns, no answer was cut"
            + (f", {skipped:,} rows with too long an answer were left out" if skipped else "")
        )
        return tokens

    def _load(self) -> Any:
        # All weights: kept in float32, computed in bfloat16 under autocast. Adapter: the frozen model in bfloat16.
        dtype = torch.bfloat16 if self.config.dtype == "bfloat16" and self.config.lora_rank else torch.float32
        return load_model(self.config.model, dtype=dtype, trust_remote_code=self.config.trust_remote_code)

    def _prefer_packed(self) -> bool:
        if self.config.layout == "auto":
            return bool(self.accelerator.device.type == "cpu")
        return self.config.layout == "packed"

    def _optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        trained = [p for p in model.parameters() if p.requires_grad]
        assert self.config.learning_rate is not None
        return torch.optim.AdamW(
            trained,
            lr=self.config.learning_rate,
            betas=self.config.adam_betas,
            weight_decay=self.config.weight_decay,
            fused=None if self.sharded else True,
        )

    def _identity(self, causal: Any, tokens: TokenizedFeedback, train: np.ndarray) -> dict[str, Any]:
        """What a checkpoint must agree with to be resumed."""
        config = self.config
        learnt = config.model_dump(
            mode="json",
            include={
                "epochs", "max_steps", "batch_size", "learning_rate", "schedule", "warmup", "weight_decay",
                "adam_betas", "max_grad_norm", "class_balance", "class_weight_cap", "shuffle", "seed", "dtype",
                "lora_rank", "lora_alpha", "lora_targets", "holdout",
            },
        )  # fmt: skip
        rows = (tokens.first, tokens.weight, tokens.label, tokens.rating, tokens.tie, train)
        return {
            "model": fingerprint(causal),
            "feedback": Sequences.of(tokens).digest() + digest_of(*rows),
            "objective": {config.objective: self.objective.options | config.options},
            "settings": learnt,
        }

    def _model_setting(self, causal: Any, parameters: int) -> Setting:
        trained = sum(p.numel() for p in causal.parameters() if p.requires_grad)
        how = (
            f"adapter of rank {self.config.lora_rank}, {trained:,} trained" if self.config.lora_rank else "all trained"
        )
        return Setting("parameters", f"{parameters:,}", f"{how}, {self.config.dtype}")

    def _reference_setting(self) -> Setting:
        if "reference" not in self.objective.needs:
            return Setting("reference", "none", f"{self.objective.name} needs none")
        reasons = {
            "cached": "the model before training, scored once and kept on disk",
            "adapter": "the model with its adapter off, at every step",
            "live": "a second copy of the model, at every step",
        }
        return Setting("reference", self.config.reference, reasons[self.config.reference])

    def _start_output(self, feedback: Feedback) -> None:
        """The first records. They come after all checks, so that a run that is refused leaves the folder empty."""
        if self.main:
            clear_temporary(self.output_dir)
            write_text(self.output_dir / "run.yaml", write_config(self.config))
            if feedback.skipped:
                write_skipped(feedback.skipped, self.output_dir / _SKIPPED)

    def _needed(
        self, tokens: TokenizedFeedback, sequences: Sequences, schedule: Schedule, held: np.ndarray, mismatched: Any
    ) -> np.ndarray:
        """Sequences whose reference log-probs this run reads: a run of few steps does not see all rows."""
        seen = schedule.pool
        if schedule.steps < schedule.steps_per_epoch:
            seen = np.concatenate([schedule.examples(step) for step in range(schedule.steps)])
        own = own_sequences(tokens, np.union1d(seen, held))
        extra = np.arange(len(tokens.completions), len(sequences)) if mismatched is not None else np.zeros(0, np.int64)
        return np.concatenate([own, extra])

    def _reference(
        self, scorer: Scorer, sequences: Sequences, wrapped: LogProbModel, model_fingerprint: str, needed: np.ndarray
    ) -> Any:
        mode = self.config.reference
        if "reference" not in self.objective.needs:
            return None
        if mode == "adapter":
            adapted: Any = wrapped.causal
            return LiveReference(scorer.model, adapted.disable_adapter)
        if mode == "live":
            return LiveReference(self._second_model(wrapped), None)
        # Adapters start as the identity, so in both cases the model before its first step is the reference.
        folder = self.config.cache_dir or default_cache_dir()
        cache = ReferenceCache(folder, model_fingerprint, self.config.dtype, sequences)
        logps, why = cache.read()
        if why:
            self.reporter.warn(why)
        # Workers may have caches of their own: what one of them lacks, all score together.
        found = scorer.sum(torch.from_numpy(np.isfinite(logps[needed])).float()).numpy() == scorer.workers
        missing = needed[~found]
        if len(found) and found.any():
            self.reporter.note(f"reference log-probs: {int(found.sum()):,} found in {cache.path.parent}")
        if len(missing):
            with self.reporter.phase("reference log-probs", len(missing)) as advance:
                logps[missing] = scorer.score(sequences, missing, progress=advance)[0].numpy()
            if not np.isfinite(logps[missing]).all():
                self.reporter.warn("some reference log-probs are not finite; the rows they belong to will be named")
            elif self.main and (failure := cache.write(logps)):
                self.reporter.warn(failure)
        return CachedReference(logps)

    def _second_model(self, wrapped: LogProbModel) -> LogProbModel:
        if self.config.model == "given":
            raise BadConfig("a live reference loads the model again, and it was given as an object; use cached")
        second = self._load().to(self.accelerator.device).requires_grad_(False)
        return LogProbModel(second, packed=wrapped.packed, full_logits=wrapped.full_logits)

    # -- training -----------------------------------------------------------------------------------------------------

    def _train(self, trainer: Trainer) -> list[Metrics]:
        path = self.output_dir / "metrics.jsonl"
        done = trainer.resume() if self.config.resume else 0
        if self.config.resume:
            self.reporter.note(f"resumed after step {done:,}" if done else "no checkpoint found; starting at step 1")
        metrics = _read_metrics(path, done)
        if self.main:
            write_text(path, "".join(json.dumps(m) + "\n" for m in metrics))
        self.accelerator.wait_for_everyone()
        with (
            self.reporter.training(trainer.schedule.steps, done) as show,
            open(path, "a", encoding="utf-8") if self.main else nullcontext() as log,
        ):
            for step in trainer.run():
                show(step)
                if step["step"] % self.config.log_every == 0 or step["step"] == trainer.schedule.steps:
                    metrics.append(step)
                    if log is not None:
                        with saving(path):
                            log.write(json.dumps(step) + "\n")
                            log.flush()
        return metrics

    def _held_out(self, trainer: Trainer, held: np.ndarray) -> HeldOut:
        with self.reporter.phase("held-out rows", len(held)):
            return measure(trainer, held)

    # -- samples and records ------------------------------------------------------------------------------------------

    def _sample_prompts(self, feedback: Feedback, tokens: TokenizedFeedback, examples: np.ndarray) -> list[Content]:
        """A few different prompts, from the held-out ones where there are any."""
        order = np.random.default_rng([self.config.seed, 1]).permutation(examples)
        _, first = np.unique(tokens.example_prompt[order], return_index=True)
        chosen = order[np.sort(first)][: self.config.report_samples]
        return [feedback.rows[int(tokens.row[e])].prompt for e in chosen]

    def _sample(
        self, causal: Any, tokenizer: Any, tokens: TokenizedFeedback, prompts: list[Content], title: str
    ) -> list[str]:
        if not prompts or causal is None or not self.main or self.sharded:
            return []
        longest = int(np.percentile(tokens.completion_lengths, 95))
        causal.to(self.accelerator.device)
        with self.reporter.phase(title, len(prompts)) as advance:
            return sample(
                causal,
                tokenizer,
                prompts,
                max_new_tokens=min(128, max(16, longest)),
                temperature=0.8,
                top_p=0.95,
                seed=self.config.seed,
                max_prompt_tokens=self.config.max_prompt_tokens,
                as_chat=self.config.as_chat,
                progress=advance,
            )

    def _facts(
        self, feedback: Feedback, tokens: TokenizedFeedback, train: np.ndarray, held: np.ndarray
    ) -> dict[str, Any]:
        """What the data were, as the report shows it."""
        facts: dict[str, Any] = {"rows learnt from": len(train)}
        if tokens.label is not None:
            ups = int((tokens.label[train] > 0.5).sum())
            facts |= {"thumbs up": ups, "thumbs down": len(train) - ups}
        return facts | {
            "rows held out": len(held),
            "bad rows left out": len(feedback.skipped),
            "rows with too long an answer left out": len(tokens.skipped),
            "prompts that lost their oldest turns": len(tokens.trimmed_prompts),
            "median tokens of a prompt": int(np.median(tokens.prompt_lengths)),
            "median tokens of an answer": int(np.median(tokens.completion_lengths)),
        }

    def _write_records(self, result: AlignResult) -> None:
        from likewise.report.card import model_card

        summary, heldout = result.summary, result.heldout
        write_text(self.output_dir / "report.html", result.page())
        write_text(self.output_dir / "summary.json", json.dumps(summary.to_dict(heldout), indent=2) + "\n")
        write_text(self.output_dir / "README.md", model_card(self.config, summary, heldout, result.facts))
        self.reporter.title("what the curves say")
        for finding in summary.findings:
            self.reporter.note(f"{finding.mark} {finding.text}")
        self.reporter.note(f"model, metrics and report.html are in {self.output_dir}")


def _read_metrics(path: Path, steps: int) -> list[Metrics]:
    """The records of the steps before a checkpoint; a line cut off by a kill is not one of them."""
    found: list[Metrics] = []
    if steps and path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry["step"] <= steps:
                found.append(entry)
    return found
