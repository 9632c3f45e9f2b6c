"""From feedback rows to token ids, spelt out with a byte-level tokenizer, where one byte is one token."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from likewise.data.read import read_feedback
from likewise.data.tokens import Renderer, tokenize_feedback
from likewise.errors import BadConfig, BadModel, BadRow


def _ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _with_bos(tokenizer, *, closes: bool = False):
    """A copy whose post-processor writes a BOS before every text (and an EOS after it, if `closes`)."""
    from tokenizers.processors import TemplateProcessing

    other = copy.deepcopy(tokenizer)
    other.add_special_tokens({"bos_token": "<|begin|>"})
    single = "<|begin|> $A" + (" <|end|>" if closes else "")
    other.backend_tokenizer.post_processor = TemplateProcessing(
        single=single, special_tokens=[("<|begin|>", other.bos_token_id), ("<|end|>", other.eos_token_id)]
    )
    return other


def _one(tokenizer, row, **options):
    tokens = tokenize_feedback(read_feedback([row]), tokenizer, **options)
    return tokens.prompts[0].tolist(), tokens.completions[0].tolist()


def _chat(*turns):
    return [{"role": role, "content": content} for role, content in turns]


# -- boundaries and special tokens ------------------------------------------------------------------------------------


def test_a_chat_row_by_hand(tiny_tokenizer):
    row = {"prompt": _chat(("system", "s"), ("user", "hi")), "completion": "yes", "label": True}
    prompt, completion = _one(tiny_tokenizer, row)
    assert tiny_tokenizer.decode(prompt) == "<|system|>s<|user|>hi<|assistant|>"
    assert completion == [*_ids(tiny_tokenizer, "yes"), tiny_tokenizer.eos_token_id]


def test_what_a_template_writes_after_the_end_of_a_turn_is_no_part_of_the_answer(tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = tokenizer.chat_template.replace("<|end|>", "<|end|>{{ '\\n' }}")
    row = {"prompt": _chat(("user", "a"), ("assistant", "b"), ("user", "c")), "completion": "yes", "label": True}
    prompt, completion = _one(tokenizer, row)
    assert tokenizer.decode(prompt) == "<|user|>a<|assistant|>b<|end|>\n<|user|>c<|assistant|>"
    assert tokenizer.decode(completion) == "yes<|end|>"


def test_a_plain_text_row_by_hand(tiny_tokenizer):
    prompt, completion = _one(tiny_tokenizer, {"prompt": "Q: ", "completion": "yes", "label": False})
    assert prompt == _ids(tiny_tokenizer, "Q: ")
    assert completion == [*_ids(tiny_tokenizer, "yes"), tiny_tokenizer.eos_token_id]


def test_training_prompts_are_what_a_sampled_model_is_given(tiny_tokenizer, tiny_model):
    """Not the renderer's word for it: the ids that reach the model's own generate."""
    import torch
    from transformers import AutoModelForCausalLM

    from likewise.evaluate import sample

    rows = [
        {"prompt": _chat(("user", "how are you")), "completion": "a", "label": True},
        {"prompt": _chat(("user", "a"), ("assistant", "b"), ("user", "c")), "completion": "b", "label": False},
        {"prompt": "plain: ", "completion": "b", "label": False},
    ]
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    seen = []
    model.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    tokens = tokenize_feedback(read_feedback(rows), tiny_tokenizer)
    for i, row in enumerate(rows):
        seen.clear()
        sample(model, tiny_tokenizer, [row["prompt"]], max_new_tokens=1, temperature=0)
        assert torch.equal(seen[0], torch.tensor([tokens.prompts[i].tolist()]))


def test_one_bos_when_the_tokenizer_adds_it(tiny_tokenizer):
    tokenizer = _with_bos(tiny_tokenizer)
    bos = tokenizer.bos_token_id
    prompt, completion = _one(tokenizer, {"prompt": "Q: ", "completion": "yes", "label": True})
    assert prompt == [bos, *_ids(tokenizer, "Q: ")]
    assert completion == [*_ids(tokenizer, "yes"), tokenizer.eos_token_id]
    # The text has one already.
    prompt, completion = _one(tokenizer, {"prompt": "<|begin|>Q: ", "completion": "yes", "label": True})
    assert prompt == [bos, *_ids(tokenizer, "Q: ")]
    assert bos not in completion


def test_one_bos_when_the_template_writes_it(tiny_tokenizer):
    tokenizer = _with_bos(tiny_tokenizer)
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    row = {"prompt": _chat(("user", "hi")), "completion": "yes", "label": True}
    prompt, completion = _one(tokenizer, row)
    assert prompt.count(tokenizer.bos_token_id) == 1
    assert prompt[0] == tokenizer.bos_token_id
    assert completion == [*_ids(tokenizer, "yes"), tokenizer.eos_token_id]


def test_a_tokenizer_that_closes_every_text_leaves_the_prompt_open(tiny_tokenizer):
    tokenizer = _with_bos(tiny_tokenizer, closes=True)
    prompt, completion = _one(tokenizer, {"prompt": "Q: ", "completion": "yes", "label": True})
    assert prompt == [tokenizer.bos_token_id, *_ids(tokenizer, "Q: ")]
    assert completion == [*_ids(tokenizer, "yes"), tokenizer.eos_token_id]


def test_an_answer_that_ends_itself_gets_no_second_end(tiny_tokenizer):
    _, completion = _one(tiny_tokenizer, {"prompt": "Q: ", "completion": "yes<|end|>", "label": True})
    assert completion == [*_ids(tiny_tokenizer, "yes"), tiny_tokenizer.eos_token_id]


def test_a_template_without_an_end_token_gets_one(tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = (
        "{%- for m in messages -%}[{{ m['role'] }}]{{ m['content'] }}\n{%- endfor -%}"
        "{%- if add_generation_prompt -%}[assistant]{%- endif -%}"
    )
    _, completion = _one(tokenizer, {"prompt": _chat(("user", "hi")), "completion": "yes", "label": True})
    assert completion[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(completion[:-1]).strip() == "yes"


def test_a_special_token_inside_an_answer_does_not_cut_it(tiny_tokenizer):
    _, completion = _one(tiny_tokenizer, {"prompt": "Q: ", "completion": "a<|user|>b", "label": True})
    assert tiny_tokenizer.decode(completion) == "a<|user|>b<|end|>"


def _merging_tokenizer(tiny_tokenizer):
    """Byte pairs "ab" merge into one token, so "…a" + "b…" tokenizes differently together than apart."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {c: i for i, c in enumerate([*alphabet, "ab"])}
    inner = Tokenizer(models.BPE(vocabulary, [("a", "b")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>", pad_token="<|pad|>")


def test_a_merge_across_the_boundary_is_taken_apart(tiny_tokenizer):
    tokenizer = _merging_tokenizer(tiny_tokenizer)
    assert len(_ids(tokenizer, "xab")) == 2  # the trap is set
    prompt, completion = _one(tokenizer, {"prompt": "xa", "completion": "by", "label": True})
    assert prompt == _ids(tokenizer, "xa")
    assert completion == [*_ids(tokenizer, "by"), tokenizer.eos_token_id]


@settings(max_examples=60, deadline=None)
@given(st.text("ab xé", min_size=1, max_size=12), st.text("ab xé", min_size=1, max_size=12))
def test_prompt_and_answer_join_to_the_whole_text(prompt_text, answer):
    tokenizer = _merging_tokenizer(None)
    if not prompt_text.strip() or not answer.strip():
        return
    prompt, completion = _one(tokenizer, {"prompt": prompt_text, "completion": answer, "label": True})
    assert prompt == _ids(tokenizer, prompt_text)
    assert tokenizer.decode([*prompt, *completion[:-1]]) == prompt_text + answer
    assert completion[-1] == tokenizer.eos_token_id


# -- templates that cannot serve --------------------------------------------------------------------------------------


def test_no_template_says_how_to_give_one(tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(BadModel, match="--chat-template"):
        _one(tokenizer, {"prompt": _chat(("user", "hi")), "completion": "yes", "label": True})


def test_a_template_whose_prompt_is_no_beginning_of_the_whole_is_refused(tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = "{{ messages|length }}" + tokenizer.chat_template
    with pytest.raises(BadModel, match=r"not the beginning(.|\n)*--chat-template"):
        _one(tokenizer, {"prompt": _chat(("user", "hi")), "completion": "yes", "label": True})


def test_a_template_that_refuses_a_turn_says_which_turns(tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = (
        "{%- for m in messages -%}{%- if m['role'] == 'system' -%}{{ raise_exception('no system here') }}{%- endif -%}"
        "{{ m['content'] }}{%- endfor -%}"
    )
    row = {"prompt": _chat(("system", "s"), ("user", "hi")), "completion": "yes", "label": True}
    with pytest.raises(BadModel, match=r"system, user(.|\n)*no system here(.|\n)*--chat-template"):
        _one(tokenizer, row)


@pytest.mark.parametrize("lost", ["system", "user", "assistant"])
def test_a_template_that_loses_a_turn_is_found_out(tiny_tokenizer, lost):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "{%- for m in messages -%}", "{%- for m in messages if m['role'] != '" + lost + "' -%}"
    )
    row = {"prompt": _chat(("system", "be good"), ("user", "hello")), "completion": "yes indeed", "label": True}
    with pytest.raises(BadModel, match=rf"leaves out(.|\n)*{lost}(.|\n)*--chat-template"):
        _one(tokenizer, row)


def test_a_template_that_trims_and_folds_turns_is_fine(tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = (
        "{%- if messages[0]['role'] == 'system' -%}{%- set s = messages[0]['content'] + '\n' -%}"
        "{%- set messages = messages[1:] -%}{%- else -%}{%- set s = '' -%}{%- endif -%}"
        "{%- for m in messages -%}<|{{ m['role'] }}|>{{ (s if loop.first else '') + m['content'] | trim }}"
        "{% if m['role'] == 'assistant' %}<|end|>{% endif %}{%- endfor -%}"
        "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
    )
    row = {"prompt": _chat(("system", " be good "), ("user", "  hello ")), "completion": " yes ", "label": True}
    prompt, completion = _one(tokenizer, row)
    assert tokenizer.decode(prompt) == "<|user|> be good \nhello<|assistant|>"
    assert tokenizer.decode(completion) == "yes<|end|>"


def test_a_tokenizer_without_an_end_token_is_refused(tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(BadModel, match="eos_token"):
        _one(tokenizer, {"prompt": "Q: ", "completion": "yes", "label": True})


# -- limits -----------------------------------------------------------------------------------------------------------


def test_a_long_chat_loses_its_oldest_turns_and_keeps_system_and_last_user_turn(tiny_tokenizer):
    turns = [("system", "be kind")]
    for i in range(6):
        turns += [("user", f"question {i}"), ("assistant", f"answer {i}")]
    turns.append(("user", "the last one"))
    row = {"prompt": _chat(*turns), "completion": "yes", "label": True}
    tokens = tokenize_feedback(read_feedback([row]), tiny_tokenizer, max_tokens=100, max_prompt_tokens=80)
    text = tiny_tokenizer.decode(tokens.prompts[0])
    # By hand: <|system|>be kind is 8 tokens, an exchange 1+10+1+8+1 = 21, the end 1+12+1 = 14. 80 - 22 hold two.
    assert text == (
        "<|system|>be kind<|user|>question 4<|assistant|>answer 4<|end|><|user|>question 5<|assistant|>answer 5<|end|>"
        "<|user|>the last one<|assistant|>"
    )
    assert len(tokens.prompts[0]) <= 80
    assert tokens.trimmed_prompts == [0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(0, 12), st.integers(16, 90))
def test_trimming_keeps_as_many_exchanges_as_fit(tiny_tokenizer, sizes, system, limit):
    """Against a plain search over all suffixes that begin with a user turn."""
    messages = [{"role": "system", "content": "s" * system}] if system else []
    for size in sizes[:-1]:
        messages += _chat(("user", "q" * size), ("assistant", "a" * size))
    messages += _chat(("user", "z" * sizes[-1]))
    renderer = Renderer(tiny_tokenizer, max_tokens=200, max_prompt_tokens=limit)
    got = tiny_tokenizer.decode(renderer.prompts([messages])[0])
    keep = 1 if system else 0
    best = None
    for start in range(keep, len(messages)):
        if messages[start]["role"] != "user":
            continue
        kept = messages[:keep] + messages[start:]
        text = tiny_tokenizer.apply_chat_template(kept, tokenize=False, add_generation_prompt=True)
        if len(_ids(tiny_tokenizer, text)) <= limit:
            best = text
            break
    if best is None:  # even the last exchange is too long: its beginning goes
        end = "z<|assistant|>"
        assert got.endswith(end)
        assert len(_ids(tiny_tokenizer, got)) == limit
    else:
        assert got == best


def test_a_last_user_turn_that_is_too_long_loses_its_beginning(tiny_tokenizer):
    row = {"prompt": _chat(("system", "s"), ("user", "x" * 100 + "the question?")), "completion": "yes", "label": True}
    tokens = tokenize_feedback(read_feedback([row]), tiny_tokenizer, max_tokens=60, max_prompt_tokens=40)
    text = tiny_tokenizer.decode(tokens.prompts[0])
    assert text.startswith("<|system|>s<|user|>x")
    assert text.endswith("the question?<|assistant|>")
    assert len(tokens.prompts[0]) == 40


def test_a_system_message_is_never_cut(tiny_tokenizer):
    row = {"prompt": _chat(("system", "s" * 60), ("user", "hi")), "completion": "yes", "label": True}
    with pytest.raises(BadRow, match=r"row 1(.|\n)*system(.|\n)*--max-prompt-tokens"):
        tokenize_feedback(read_feedback([row]), tiny_tokenizer, max_tokens=90, max_prompt_tokens=40)
    tokens = tokenize_feedback(
        read_feedback([row]), tiny_tokenizer, max_tokens=90, max_prompt_tokens=40, long_completions="skip"
    )
    assert len(tokens) == 0
    assert "system" in tokens.skipped[0][1]


def test_a_long_plain_prompt_keeps_its_end_and_its_bos(tiny_tokenizer):
    tokenizer = _with_bos(tiny_tokenizer)
    row = {"prompt": "x" * 100 + "the end: ", "completion": "yes", "label": True}
    tokens = tokenize_feedback(read_feedback([row]), tokenizer, max_tokens=60, max_prompt_tokens=20)
    assert tokens.prompts[0][0] == tokenizer.bos_token_id
    assert tokenizer.decode(tokens.prompts[0][1:]) == "x" * 10 + "the end: "
    assert tokens.trimmed_prompts == [0]


def test_a_long_answer_takes_room_from_the_prompt_and_is_never_cut(tiny_tokenizer):
    row = {"prompt": "p" * 40, "completion": "c" * 70, "label": True}
    prompt, completion = _one(tiny_tokenizer, row, max_tokens=100, max_prompt_tokens=50)
    assert len(completion) == 71
    assert len(prompt) == 29


def test_an_answer_that_cannot_fit_is_an_error_or_skipped_and_counted(tiny_tokenizer):
    rows = [
        {"prompt": "p" * 40, "completion": "fine", "label": True},
        {"prompt": "p" * 40, "completion": "c" * 120, "label": False},
    ]
    with pytest.raises(BadRow, match=r"row 2: 'completion' has 121 tokens(.|\n)*--max-tokens(.|\n)*--long-completions"):
        tokenize_feedback(read_feedback(rows), tiny_tokenizer, max_tokens=100, max_prompt_tokens=50)
    tokens = tokenize_feedback(
        read_feedback(rows), tiny_tokenizer, max_tokens=100, max_prompt_tokens=50, long_completions="skip"
    )
    assert tokens.row.tolist() == [0]
    assert [row for row, _ in tokens.skipped] == [1]
    assert tiny_tokenizer.decode(tokens.completions[0]) == "fine<|end|>"


def test_limits_that_contradict_each_other_are_refused(tiny_tokenizer):
    for options in ({"max_tokens": 100, "max_prompt_tokens": 100}, {"max_tokens": 8, "max_prompt_tokens": 4}):
        with pytest.raises(BadConfig, match="max_"):
            Renderer(tiny_tokenizer, **options)


# -- pairs, ratings, soft labels --------------------------------------------------------------------------------------


def test_the_sides_of_a_pair_share_one_trimmed_prompt(tiny_tokenizer):
    row = {"prompt": "p" * 60, "chosen": "c" * 60, "rejected": "r"}
    tokens = tokenize_feedback(read_feedback([row]), tiny_tokenizer, max_tokens=100, max_prompt_tokens=50)
    # 61 tokens of the longer side leave 39 for the prompt of both.
    assert len(tokens.prompts) == 1
    assert len(tokens.prompts[0]) == 39
    assert tokens.prompt_of.tolist() == [0, 0]
    assert tokens.first.tolist() == [0, 2]
    assert [tiny_tokenizer.decode(c) for c in tokens.completions] == ["c" * 60 + "<|end|>", "r<|end|>"]


def test_equal_prompts_are_stored_once_and_rows_keep_their_numbers(tiny_tokenizer):
    rows = [{"prompt": p, "completion": "x", "label": i % 2 == 0} for i, p in enumerate(["a: ", "b: ", "a: "])]
    tokens = tokenize_feedback(read_feedback(rows), tiny_tokenizer)
    assert len(tokens.prompts) == 2
    assert tokens.example_prompt.tolist() == [0, 1, 0]
    assert tokens.row.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(tokens.label, [1.0, 0.0, 1.0])


def test_plain_prompts_can_be_wrapped_as_a_chat(tiny_tokenizer):
    prompt, completion = _one(tiny_tokenizer, {"prompt": "hi", "completion": "yes", "label": True}, as_chat=True)
    assert tiny_tokenizer.decode(prompt) == "<|user|>hi<|assistant|>"
    assert tiny_tokenizer.decode(completion) == "yes<|end|>"


# -- real data --------------------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_real_pairs_have_the_lengths_their_description_gives(shared_data):
    """The README of the data: median 144, 95 % 430, at most 925 tokens of a prompt with its chosen answer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "pythia")
    rows = read_feedback(shared_data / "hh_harmless" / "train.jsonl", skip_bad_rows=True)
    tokens = tokenize_feedback(rows, tokenizer)
    # The template writes a newline after an answer, which the README counts and a completion does not hold.
    totals = (tokens.prompt_lengths + tokens.completion_lengths)[0::2] + 1
    assert len(tokens) == 1841 - 4  # four have an empty answer
    assert np.median(totals) == pytest.approx(144, abs=1)
    assert np.percentile(totals, 95) == pytest.approx(430, abs=2)
    assert totals.max() == 925
    assert not tokens.trimmed_prompts
    assert all(c[-1] == tokenizer.eos_token_id and (c[:-1] != tokenizer.eos_token_id).all() for c in tokens.completions)
