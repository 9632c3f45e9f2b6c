"""From feedback rows to token ids: chat templates, the prompt-completion boundary, and limits on length.

Rules, each with a test:
- the prompt's tokens are exactly those the model is given when it is sampled, so training and sampling agree;
- one BOS at most, and every answer ends with the token that ends a turn;
- a chat template that leaves out a turn, or changes the answer, is refused;
- an answer is never cut: one that does not fit is an error, or a row skipped and counted;
- a prompt that does not fit loses its oldest turns, then the beginning of its last user turn, never the system message:
  one that does not fit is an error, or a row skipped and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from likewise.data.ragged import Ragged
from likewise.errors import BadConfig, BadModel, BadRow
from likewise.schema import Content, Feedback, LabelRow, Message, PairRow, RatingRow

LongCompletions = Literal["error", "skip"]

# A prompt is never cut below this many tokens to make room for a long answer.
SMALLEST_PROMPT = 16
_BATCH = 1024


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    eos_token_id: int | None
    all_special_ids: list[int]
    chat_template: Any

    def __call__(self, text: Any, **options: Any) -> Any: ...
    def apply_chat_template(self, conversation: Any, **options: Any) -> Any: ...
    def decode(self, token_ids: Any, **options: Any) -> Any: ...


@dataclass(frozen=True)
class TokenizedFeedback:
    """Feedback as token ids. A *sequence* is a prompt with one completion; an *example* is a row.

    Example i owns the sequences `first[i]` to `first[i + 1]`: one for a label, chosen then rejected for a pair, all
    answers for a rating. Prompts are stored once however many rows share them.
    """

    kind: Literal["label", "pair", "rating"]
    source: str
    prompts: Ragged
    completions: Ragged  # one per sequence
    prompt_of: np.ndarray  # int64 [sequences]: index into prompts
    first: np.ndarray  # int64 [examples + 1]
    weight: np.ndarray  # float64 [examples]
    label: np.ndarray | None  # float64 [examples], kind "label"
    rating: np.ndarray | None  # float64 [sequences], NaN where there is none
    tie: np.ndarray | None  # bool [examples], kind "pair"
    row: np.ndarray  # int64 [examples]: position in the feedback that was given
    source_row: np.ndarray  # int64 [examples]: number in the file or data set it came from, from 1
    trimmed_prompts: list[int] = field(default_factory=list)  # rows whose prompt lost its oldest part
    skipped: list[tuple[int, str]] = field(default_factory=list)  # (row, reason)

    def __len__(self) -> int:
        return len(self.first) - 1

    @property
    def prompt_lengths(self) -> np.ndarray:
        """Tokens of the prompt, per sequence."""
        return self.prompts.lengths[self.prompt_of]

    @property
    def completion_lengths(self) -> np.ndarray:
        """Tokens of the completion with its end token, per sequence."""
        return self.completions.lengths

    @property
    def example_prompt(self) -> np.ndarray:
        """The prompt's index, per example."""
        return self.prompt_of[self.first[:-1]]


class SystemTooLong(BadConfig):
    """A system message that does not fit into the limit of a prompt."""


class Renderer:
    """Turns prompts and completions into token ids with one tokenizer and one pair of limits."""

    def __init__(
        self, tokenizer: Any, *, max_tokens: int = 2048, max_prompt_tokens: int = 1536, as_chat: bool = False
    ) -> None:
        if max_tokens < 2 * SMALLEST_PROMPT:
            raise BadConfig(f"max_tokens is {max_tokens}; at least {2 * SMALLEST_PROMPT} are needed")
        if not 1 <= max_prompt_tokens < max_tokens:
            raise BadConfig(
                f"max_prompt_tokens is {max_prompt_tokens} and max_tokens {max_tokens}; the prompt's limit must lie "
                "between 1 and max_tokens, with room left for the answer"
            )
        self.tokenizer, self.max_tokens, self.max_prompt_tokens, self.as_chat = (
            tokenizer,
            max_tokens,
            max_prompt_tokens,
            as_chat,
        )
        self._closes = self._closes_texts()
        self._special = {t for t in [tokenizer.eos_token_id, *tokenizer.all_special_ids] if t is not None}

    # -- text ---------------------------------------------------------------------------------------------------------

    def prompt_text(self, prompt: Content) -> str:
        """The text that the model continues."""
        if isinstance(prompt, str) and not self.as_chat:
            return prompt
        return self._template(_as_messages(prompt), add_generation_prompt=True)

    def full_text(self, prompt: Content, completion: Content) -> str:
        if isinstance(prompt, str) and not self.as_chat:
            return prompt + _as_text(completion)
        answer = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else list(completion)
        return self._template(_as_messages(prompt) + answer, add_generation_prompt=False)

    def _template(self, messages: list[Message], *, add_generation_prompt: bool) -> str:
        if not getattr(self.tokenizer, "chat_template", None):
            raise BadModel(
                "the feedback holds chat messages, and this tokenizer has no chat template.\n"
                "Give one with --chat-template FILE.jinja, use the tokenizer of the chat model (--tokenizer), or give "
                "prompts and completions as plain text."
            )
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=add_generation_prompt
                )
            )
        except Exception as error:  # templates raise whatever their author chose
            roles = ", ".join(str(m.get("role")) for m in messages)
            raise BadModel(
                f"the tokenizer's chat template refuses a conversation with the turns [{roles}]: {error}\n"
                "Give a template that takes them with --chat-template FILE.jinja, or leave those rows out."
            ) from error

    # -- tokens -------------------------------------------------------------------------------------------------------

    def encode(self, texts: Sequence[str], *, chat: bool) -> list[list[int]]:
        """Token ids; a chat template writes its own special tokens, plain text gets the tokenizer's (a BOS, say)."""
        if not texts:
            return []
        encoded: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=not chat)["input_ids"]
        if not chat:
            return [self._plain(ids) for ids in encoded]
        return encoded

    def _plain(self, ids: list[int]) -> list[int]:
        # Some tokenizers close every text with EOS: a prompt must stay open. Some add a BOS to one that has it.
        if self._closes and len(ids) > 1 and ids[-1] == self.tokenizer.eos_token_id:
            ids = ids[:-1]
        bos = getattr(self.tokenizer, "bos_token_id", None)
        while len(ids) > 1 and bos is not None and ids[0] == bos and ids[1] == bos:
            ids = ids[1:]
        return ids

    def _closes_texts(self) -> bool:
        eos = self.tokenizer.eos_token_id
        return eos is not None and self.tokenizer("a")["input_ids"][-1:] == [eos]

    def _is_chat(self, prompt: Content) -> bool:
        return self.as_chat or not isinstance(prompt, str)

    def prompts(self, prompts: Sequence[Content]) -> list[list[int]]:
        """Prompts as the model is given them when it is sampled, trimmed to `max_prompt_tokens`."""
        return [self.fit(p, ids, self.max_prompt_tokens)[0] for p, ids in zip(prompts, self._encode(prompts))]

    def _encode(self, prompts: Sequence[Content]) -> list[list[int]]:
        chat = [self._is_chat(p) for p in prompts]
        texts = [self.prompt_text(p) for p in prompts]
        for prompt, text in zip(prompts, texts):
            self._check_turns(prompt, text)
        result: list[list[int]] = [[]] * len(prompts)
        for kind in (True, False):
            where = [i for i, c in enumerate(chat) if c is kind]
            for i, ids in zip(where, self.encode([texts[i] for i in where], chat=kind)):
                result[i] = ids
        return result

    def completions(
        self, prompts: Sequence[Content], prompt_ids: Sequence[list[int]], completions: Sequence[Content]
    ) -> list[list[int]]:
        """The tokens that follow each prompt, up to and with the token that ends the turn."""
        texts, chat = [], []
        for prompt, completion in zip(prompts, completions):
            texts.append(self.full_text(prompt, completion))
            chat.append(self._is_chat(prompt))
        full: list[list[int]] = [[]] * len(texts)
        for kind in (True, False):
            where = [i for i, c in enumerate(chat) if c is kind]
            for i, ids in zip(where, self.encode([texts[i] for i in where], chat=kind)):
                full[i] = ids
        for prompt, completion, text in zip(prompts, completions, texts):
            self._check_answer(prompt, completion, text)
        return [
            self._after(prompt, head, whole, text)
            for prompt, head, whole, text in zip(prompts, prompt_ids, full, texts)
        ]

    def _check_turns(self, prompt: Content, text: str) -> None:
        """Earlier answers are not looked for: templates rightly leave the thoughts out of those."""
        if not self._is_chat(prompt):
            return
        for message in _as_messages(prompt):
            if message["role"] in ("system", "developer", "user") and message["content"].strip() not in text:
                raise self._loses(f"the {message['role']} turn", message["content"])

    def _check_answer(self, prompt: Content, completion: Content, text: str) -> None:
        if not self._is_chat(prompt):
            return
        answer = _as_messages(completion) if not isinstance(completion, str) else [{"content": completion}]
        for message in answer:
            content = message["content"]
            if content.strip() not in text or text == self.prompt_text(prompt):
                raise self._loses("part of the assistant's answer", content)

    def _loses(self, what: str, content: str) -> BadModel:
        start = content.strip()[:60]
        return BadModel(
            f"the tokenizer's chat template leaves out {what} that begins with {start!r}, so the model would not learn "
            "from what the row says.\nGive a template that writes every turn as it is with --chat-template FILE.jinja, "
            "or leave those rows out."
        )

    def _after(self, prompt: Content, head: list[int], whole: list[int], text: str) -> list[int]:
        if whole[: len(head)] == head and len(whole) > len(head):
            tail = whole[len(head) :]
        else:
            # The tokenizer merged across the boundary. Sampling never does, so the answer is tokenized on its own.
            start = self.prompt_text(prompt)
            if not text.startswith(start):
                raise BadModel(
                    "the chat template writes a prompt that is not the beginning of the full conversation, so it is "
                    "not clear which tokens are the answer.\nGive a template that only appends, with --chat-template."
                )
            tail = self.tokenizer([text[len(start) :]], add_special_tokens=False)["input_ids"][0]
        return self._ended(list(tail))

    def _ended(self, tail: list[int]) -> list[int]:
        """Cut what a template writes after the end of the turn (often a newline); add an end where there is none."""
        last = max((i for i, token in enumerate(tail) if token in self._special), default=None)
        if last is not None and not str(self.tokenizer.decode(tail[last + 1 :])).strip():
            return tail[: last + 1]
        if self.tokenizer.eos_token_id is None:
            raise BadModel(
                "this tokenizer has no end-of-sequence token, so no answer could be told to end.\n"
                "Set eos_token in its tokenizer_config.json."
            )
        return [*tail, self.tokenizer.eos_token_id]

    # -- limits -------------------------------------------------------------------------------------------------------

    def fit(self, prompt: Content, ids: list[int], limit: int) -> tuple[list[int], bool]:
        """The prompt within `limit` tokens, and whether it lost anything.

        Raises: SystemTooLong where the system message and an empty user turn do not fit.
        """
        if len(ids) <= limit:
            return ids, False
        if not self._is_chat(prompt):
            bos = getattr(self.tokenizer, "bos_token_id", None)
            if bos is not None and ids[0] == bos and limit > 1:
                return [bos, *ids[len(ids) - limit + 1 :]], True
            return ids[len(ids) - limit :], True
        messages = _as_messages(prompt)
        keep_first = 1 if messages[0]["role"] in ("system", "developer") else 0
        last_user = max(i for i, m in enumerate(messages) if m["role"] == "user")
        for cut in _turn_starts(messages, keep_first, last_user):
            shorter = self.encode(
                [self._template(messages[:keep_first] + messages[cut:], add_generation_prompt=True)], chat=True
            )[0]
            if len(shorter) <= limit:
                return shorter, True
        return self._shorten_last_turn(messages[:keep_first], messages[last_user:], limit), True

    def _shorten_last_turn(self, system: list[Message], turn: list[Message], limit: int) -> list[int]:
        """Even the last user turn alone is too long: it loses its beginning, the question usually stands at the end."""
        words = self.tokenizer([str(turn[0]["content"])], add_special_tokens=False)["input_ids"][0]

        def render(kept: int) -> list[int]:
            content = str(self.tokenizer.decode(words[len(words) - kept :])) if kept else ""
            shorter = [*system, {**turn[0], "content": content}, *turn[1:]]
            return self.encode([self._template(shorter, add_generation_prompt=True)], chat=True)[0]

        low, high = 0, len(words)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if len(render(middle)) <= limit else (low, middle - 1)
        result = render(low)
        if len(result) > limit:
            raise SystemTooLong(
                f"the prompt has a system message that needs {len(result):,} tokens with the marks of the turns, and "
                f"{limit:,} are left for it; it is never cut.\nRaise --max-prompt-tokens and --max-tokens."
            )
        return result


def tokenize_feedback(
    feedback: Feedback,
    tokenizer: Any,
    *,
    max_tokens: int = 2048,
    max_prompt_tokens: int = 1536,
    long_completions: LongCompletions = "error",
    as_chat: bool = False,
    progress: Callable[[int], None] | None = None,
) -> TokenizedFeedback:
    """Render and tokenize every row; `progress` is told of every batch done, in rows.

    A prompt longer than `max_prompt_tokens`, or than what its longest answer leaves of `max_tokens`, is trimmed and
    counted. An answer that leaves no room for a prompt is an error (`long_completions="error"`) or its row is skipped.
    Raises: BadRow for an answer that is too long, BadModel for a tokenizer or template that cannot serve.
    """
    renderer = Renderer(tokenizer, max_tokens=max_tokens, max_prompt_tokens=max_prompt_tokens, as_chat=as_chat)
    builder = _Builder(feedback, renderer, long_completions)
    for start in range(0, len(feedback.rows), _BATCH):
        rows = feedback.rows[start : start + _BATCH]
        builder.add(start, rows)
        if progress is not None:
            progress(len(rows))
    return builder.result()


class _Builder:
    def __init__(self, feedback: Feedback, renderer: Renderer, long_completions: LongCompletions) -> None:
        self.feedback, self.renderer, self.long_completions = feedback, renderer, long_completions
        self.prompt_index: dict[bytes, int] = {}
        self.prompts: list[np.ndarray] = []
        self.completions: list[list[int]] = []
        self.prompt_of: list[int] = []
        self.first = [0]
        self.weight: list[float] = []
        self.label: list[float] = []
        self.rating: list[float] = []
        self.tie: list[bool] = []
        self.row: list[int] = []
        self.source_row: list[int] = []
        self.trimmed: list[int] = []
        self.skipped: list[tuple[int, str]] = []

    def add(self, start: int, rows: Sequence[LabelRow | PairRow | RatingRow]) -> None:
        prompt_ids = self.renderer._encode([row.prompt for row in rows])
        flat_prompts, flat_ids, flat_answers, counts = [], [], [], []
        for row, ids in zip(rows, prompt_ids):
            answers = [content for content, _ in _answers(row)]
            counts.append(len(answers))
            flat_answers += answers
            flat_prompts += [row.prompt] * len(answers)
            flat_ids += [ids] * len(answers)
        completions = iter(self.renderer.completions(flat_prompts, flat_ids, flat_answers))
        for i, (row, ids, count) in enumerate(zip(rows, prompt_ids, counts)):
            self._add_row(start + i, row, ids, [next(completions) for _ in range(count)])

    def _add_row(
        self, index: int, row: LabelRow | PairRow | RatingRow, prompt: list[int], completions: list[list[int]]
    ) -> None:
        longest = max(len(c) for c in completions)
        room = self.renderer.max_tokens - longest
        if room < min(len(prompt), SMALLEST_PROMPT):
            name = "completion" if isinstance(row, LabelRow) else "chosen or rejected"
            name = "completions" if isinstance(row, RatingRow) else name
            problem = (
                f"has {longest:,} tokens with its end token; at most {self.renderer.max_tokens - SMALLEST_PROMPT:,} "
                f"fit beside a prompt in max_tokens = {self.renderer.max_tokens:,}"
            )
            self._leave_out(index, row, name, problem, "An answer is never cut. Raise --max-tokens")
            return
        try:
            prompt, trimmed = self.renderer.fit(row.prompt, prompt, min(room, self.renderer.max_prompt_tokens))
        except SystemTooLong as error:
            problem, mend = str(error).removeprefix("the prompt ").rstrip(".").split("\n")
            self._leave_out(index, row, "prompt", problem, mend)
            return
        if trimmed:
            self.trimmed.append(index)
        array = np.asarray(prompt, dtype=np.int32)
        key = array.tobytes()
        if key not in self.prompt_index:
            self.prompt_index[key] = len(self.prompts)
            self.prompts.append(array)
        for completion, (_, rating) in zip(completions, _answers(row)):
            self.completions.append(completion)
            self.prompt_of.append(self.prompt_index[key])
            self.rating.append(np.nan if rating is None else rating)
        self.first.append(len(self.completions))
        self.weight.append(row.weight)
        self.row.append(index)
        self.source_row.append(row.row or index + 1)
        if isinstance(row, LabelRow):
            self.label.append(float(row.label))
        if isinstance(row, PairRow):
            self.tie.append(bool(row.tie))

    def _leave_out(self, index: int, row: Any, name: str, problem: str, mend: str) -> None:
        """Skip a row that does not fit and count it, or raise BadRow."""
        if self.long_completions == "error":
            mend += ", or leave such rows out with --long-completions skip."
            raise BadRow(self.feedback.source, row.row or index + 1, name, problem, mend)
        self.skipped.append((index, f"{name} {problem}"))

    def result(self) -> TokenizedFeedback:
        kind = self.feedback.kind
        return TokenizedFeedback(
            kind=kind,
            source=self.feedback.source,
            prompts=Ragged.of(self.prompts),
            completions=Ragged.of(self.completions),
            prompt_of=np.asarray(self.prompt_of, dtype=np.int64),
            first=np.asarray(self.first, dtype=np.int64),
            weight=np.asarray(self.weight, dtype=np.float64),
            label=np.asarray(self.label, dtype=np.float64) if kind == "label" else None,
            rating=np.asarray(self.rating, dtype=np.float64) if kind != "label" else None,
            tie=np.asarray(self.tie, dtype=bool) if kind == "pair" else None,
            row=np.asarray(self.row, dtype=np.int64),
            source_row=np.asarray(self.source_row, dtype=np.int64),
            trimmed_prompts=self.trimmed,
            skipped=self.skipped,
        )


def _answers(row: LabelRow | PairRow | RatingRow) -> Iterator[tuple[Content, float | None]]:
    if isinstance(row, LabelRow):
        yield row.completion, None
    elif isinstance(row, PairRow):
        yield row.chosen, row.chosen_rating
        yield row.rejected, row.rejected_rating
    else:
        for answer in row.completions:
            yield answer.completion, answer.rating


def _as_messages(prompt: Content) -> list[Message]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def _as_text(completion: Content) -> str:
    if isinstance(completion, str):
        return completion
    return "\n".join(str(message["content"]) for message in completion)


def _turn_starts(messages: list[Message], keep_first: int, last_user: int) -> Iterable[int]:
    """Where the kept part may begin: at a user turn, so that no answer stands without its question."""
    return [i for i in range(keep_first + 1, last_user + 1) if messages[i]["role"] == "user"]
