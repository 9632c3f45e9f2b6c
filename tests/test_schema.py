"""One row at a time: what the checker takes, what it refuses, and in which words."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.errors import BadConfig, BadRow
from likewise.schema import (
    Answer,
    LabelRow,
    PairRow,
    RatingRow,
    check_row,
    content_key,
    kind_of,
    no_kind,
    parse_columns,
    parse_label_map,
    to_columns,
    typed_row,
)

ASK = [{"role": "user", "content": "Why is the sky blue?"}]
SAY = [{"role": "assistant", "content": "Light scatters."}]


def label(**changes):
    return {"prompt": "Why?", "completion": "Because.", "label": True} | changes


def refusal(raw, kind="label", **options) -> BadRow:
    with pytest.raises(BadRow) as caught:
        check_row(raw, kind, source="thumbs.jsonl", row=41, **options)
    return caught.value


# --- what is taken ---------------------------------------------------------------------------------------------------


def test_a_label_row_keeps_every_column():
    raw = label(weight=2, id=17, note="ignored")
    assert check_row(raw, "label", row=3) == LabelRow("Why?", "Because.", 1.0, 2.0, "17")
    assert check_row(raw, "label", row=3).row == 3


def test_a_pair_row_keeps_every_column():
    raw = {"prompt": ASK, "chosen": SAY, "rejected": "No.", "chosen_rating": 4, "rejected_rating": 1.5, "tie": False}
    no = [{"role": "assistant", "content": "No."}]
    assert check_row(raw, "pair") == PairRow(ASK, SAY, no, 4.0, 1.5)
    assert check_row(raw | {"tie": 1}, "pair").tie


def test_a_rating_row_takes_texts_and_messages():
    raw = {"prompt": ASK, "completions": [{"text": "No.", "rating": 0}, {"message": SAY[0], "rating": 4}]}
    no = [{"role": "assistant", "content": "No."}]
    assert check_row(raw, "rating") == RatingRow(ASK, (Answer(no, 0.0), Answer(SAY, 4.0)))


def test_a_flat_rating_row_is_a_group_of_one():
    raw = {"prompt": "Why?", "completion": "Because.", "rating": 3}
    assert check_row(raw, "rating") == RatingRow("Why?", (Answer("Because.", 3.0),))


@pytest.mark.parametrize(
    "found, meant", [(True, 1.0), (False, 0.0), (1, 1.0), (0, 0.0), (0.25, 0.25), (np.bool_(True), 1.0)]
)
def test_labels_are_booleans_bits_or_probabilities(found, meant):
    assert check_row(label(label=found), "label").label == meant


def test_a_label_map_gives_words_and_numbers_a_meaning():
    options = {"label_map": parse_label_map("yes=true,no=false,-1=0,meh=0.5")}
    read = [check_row(label(label=found), "label", **options).label for found in ("yes", " no ", -1, "meh", True)]
    assert read == [1.0, 0.0, 0.0, 0.5, 1.0]


def test_a_label_map_may_turn_booleans_round():
    options = {"label_map": parse_label_map("true=false,false=true")}
    assert check_row(label(label=True), "label", **options).label == 0.0


def test_columns_with_other_names_are_read_and_named_in_errors():
    options = {"columns": {"prompt": "question", "completion": "answer"}}
    raw = {"question": "Why?", "answer": "Because.", "label": 1}
    assert check_row(raw, "label", **options) == LabelRow("Why?", "Because.", 1.0)
    assert str(refusal(raw | {"answer": ""}, **options)).startswith("thumbs.jsonl row 41: 'answer' is empty")


def test_a_completion_may_hold_tool_calls_and_their_results():
    turns = [
        {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "light"}}], "content": None},
        {"role": "tool", "name": "light", "content": "done"},
        {"role": "assistant", "content": "It is on."},
    ]
    taken = check_row(label(prompt=ASK, completion=turns), "label").completion
    assert [m["content"] for m in taken] == ["", "done", "It is on."]
    assert taken[0]["tool_calls"] == turns[0]["tool_calls"]


def test_text_parts_are_joined_and_nulls_of_arrow_dropped():
    prompt = [
        {"role": "user", "content": [{"type": "text", "text": "Why"}, {"type": "text", "text": "?"}], "name": None}
    ]
    assert check_row(label(prompt=prompt), "label").prompt == [{"role": "user", "content": "Why?"}]


def test_a_single_message_needs_no_list():
    taken = check_row(label(prompt=ASK[0], completion=SAY[0]), "label")
    assert (taken.prompt, taken.completion) == (ASK, SAY)


def test_spaces_around_an_answer_stay():
    assert check_row(label(completion=" blue.\n"), "label").completion == " blue.\n"


def test_numpy_values_and_arrays_of_messages_are_read():
    raw = label(prompt=np.array(ASK, dtype=object), label=np.float32(0.5), weight=np.int64(2))
    assert check_row(raw, "label") == LabelRow(ASK, [{"role": "assistant", "content": "Because."}], 0.5, 2.0)


# --- what is refused -------------------------------------------------------------------------------------------------


def test_the_message_says_file_row_field_found_and_mend():
    assert str(refusal(label(label="yes"))) == (
        "thumbs.jsonl row 41: 'label' is \"yes\"; expected true or false\nMap it with --label-map yes=true,no=false."
    )


@pytest.mark.parametrize(
    "found, mend",
    [
        ("No", "--label-map Yes=true,No=false"),
        ("thumbs_down", "--label-map thumbs_up=true,thumbs_down=false"),
        ("👎", "--label-map 👍=true,👎=false"),
        (-1, "--label-map 1=true,-1=false"),
        ("so so", "--label-map 'so so=true,OTHER=false'"),
        (4, "--kind rating --columns rating=label"),
        (None, "leave the row out"),
        ("true", "--label-map true=true,false=false"),
    ],
)
def test_a_label_without_meaning_gets_the_mend_that_fits(found, mend):
    assert mend in refusal(label(label=found)).mend


def test_a_label_outside_the_map_is_refused_with_the_names_it_knows():
    found = refusal(label(label="yess"), label_map={"yes": 1.0, "no": 0.0})
    assert "\"yess\"; the label map knows yes, no; did you mean 'yes'?" in str(found)


@pytest.mark.parametrize("found", [math.nan, math.inf, -0.5, [1], {"up": 1}])
def test_a_label_that_is_no_probability_is_refused(found):
    assert refusal(label(label=found)).field == "label"


@pytest.mark.parametrize(
    "changes, field, problem",
    [
        ({"completion": ""}, "completion", "is empty"),
        ({"completion": " \n"}, "completion", "is empty"),
        ({"completion": [{"role": "assistant", "content": ""}], "prompt": ASK}, "completion", "is empty"),
        ({"completion": None}, "completion", "is null; expected text or a list of messages"),
        ({"completion": 7}, "completion", "is 7; expected text or a list of messages"),
        ({"completion": SAY}, "completion", "is a list of messages while the prompt is text"),
        ({"completion": ASK + SAY, "prompt": ASK}, "completion", "has the roles user, assistant; expected"),
        ({"completion": []}, "completion", "is an empty list of messages"),
        ({"prompt": ""}, "prompt", "is empty"),
        ({"prompt": [{"role": "user", "content": " "}]}, "prompt", "is empty: no user turn says anything"),
        ({"prompt": []}, "prompt", "is an empty list of messages"),
        ({"prompt": [{"role": "system", "content": "Be brief."}]}, "prompt", "has no user turn (its roles: system)"),
        ({"prompt": ASK + SAY}, "prompt", "ends with an assistant turn"),
        ({"prompt": [{"role": "usr", "content": "Hi"}]}, "prompt", "message 1 has the unknown role \"usr\"; known are "
         "system, developer, user, assistant, tool; did you mean 'user'?"),
        ({"prompt": [{"role": "human", "content": "Hi"}]}, "prompt", "did you mean 'user'?"),
        ({"prompt": [{"from": "human", "value": "Hi"}]}, "prompt", "message 1 has no 'role'; it has 'from', 'value'"),
        ({"prompt": [*ASK, {"role": "user"}]}, "prompt", "message 2 (user) has no 'content'"),
        ({"prompt": [{"role": "user", "content": 5}]}, "prompt", "message 1 has content that is 5; expected text"),
        ({"prompt": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, "prompt",
         "has content parts of type image_url; only text can be learnt from"),
        ({"prompt": ["Hi"]}, "prompt", "message 1 is the text \"Hi\""),
        ({"prompt": "caf\udce9"}, "prompt", "is not valid UTF-8: the byte 0xe9 after \"caf\""),
        ({"completion": "half \ud83d"}, "completion", "is not valid UTF-8: half a character, U+D83D,"),
        ({"weight": 0}, "weight", "is 0; expected a number above 0"),
        ({"weight": "2"}, "weight", "is the text \"2\"; expected a number"),
    ],
)  # fmt: skip
def test_a_bad_label_row_is_refused_by_field_and_reason(changes, field, problem):
    found = refusal(label(**changes))
    assert found.field == field
    assert problem in found.problem


def test_a_misspelt_column_is_named_with_its_mend():
    found = refusal({"prompt": "Why?", "completion": "Because.", "lable": 1})
    assert str(found) == (
        "thumbs.jsonl row 41: 'label' is missing; the row has 'prompt', 'completion', 'lable'; "
        "did you mean 'lable'?\nRename with --columns label=lable."
    )


@pytest.mark.parametrize(
    "answers, field, problem",
    [
        ([], "completions", "is the list []; expected a list of answers"),
        ("Because.", "completions", 'is the text "Because."; expected a list of answers'),
        (["Because."], "completions[1]", 'is the text "Because."; expected an object'),
        ([{"text": "a", "rating": 1}, {"text": "b", "score": 2}], "completions[2]", "has no 'rating'"),
        ([{"answer": "a", "rating": 1}], "completions[1]", "has neither 'text' nor 'message'"),
        ([{"text": "a", "rating": "good"}], "completions[1].rating", 'is the text "good"; expected a number'),
        ([{"text": "a", "rating": math.nan}], "completions[1].rating", "is nan; expected a finite number"),
        ([{"text": "a", "rating": True}], "completions[1].rating", "is true; expected a number"),
        ([{"text": "", "rating": 1}], "completions[1]", "is empty"),
    ],
)
def test_a_bad_rating_row_is_refused_by_answer(answers, field, problem):
    found = refusal({"prompt": "Why?", "completions": answers}, "rating")
    assert found.field == field
    assert problem in found.problem


def test_infinite_pair_ratings_and_odd_ties_are_refused():
    pair = {"prompt": "Why?", "chosen": "a", "rejected": "b"}
    assert refusal(pair | {"chosen_rating": math.inf}, "pair").problem == "is inf; expected a finite number"
    assert refusal(pair | {"tie": "draw"}, "pair").problem == 'is "draw"; expected true or false'


def test_a_row_that_is_no_object_is_refused():
    assert str(refusal(["Why?", "Because.", True])).startswith(
        'thumbs.jsonl row 41: is the list ["Why?", "Because.", true]'
    )


def test_long_findings_are_shortened():
    assert len(str(refusal(label(label="yes" * 1000)))) < 250


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5) | st.just(10**400),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "text", "type", "message", "rating", "tool_calls"]) | st.integers(),
            inner,
        )
    ),
    max_leaves=8,
)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "tool", "bot"]), "content": anything}),
    max_size=3,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["prompt", "completion", "label", "chosen", "rejected", "completions", "rating", "weight", "tie"]
        )
        | st.integers(),
        anything | messages | st.text(min_size=1, max_size=3),
    ),
    st.sampled_from(["label", "pair", "rating"]),
)
def test_whatever_stands_in_a_row_it_is_taken_or_refused_and_never_crashes(raw, kind):
    try:
        taken = check_row(raw, kind)
    except BadRow as refused:
        str(refused).encode()
    else:
        assert check_row(to_columns(taken), kind) == taken


# --- kinds, options, and back again ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "columns, kind",
    [
        (["prompt", "completion", "label", "id"], "label"),
        (["prompt", "chosen", "rejected"], "pair"),
        (["prompt", "completions"], "rating"),
        (["prompt", "completion", "rating"], "rating"),
        (["prompt", "completion", "rating", "label"], "label"),
        (["prompt", "completion"], None),
    ],
)
def test_the_columns_tell_the_kind(columns, kind):
    assert kind_of(columns) == kind


@pytest.mark.parametrize(
    "columns, part",
    [
        (["prompt", "completion", "lable"], "needs the column 'label'; found 'prompt', 'completion', 'lable'; did you "
         "mean 'lable'?\nRename with --columns label=lable."),
        (["prompt", "choosen", "rejected"], "pair feedback needs the column 'chosen'"),
        (["question", "answer", "label"], "--columns prompt=question,completion=answer."),
        (["prompt", "completion"], "label feedback needs the column 'label'"),
        (["chosen", "rejected"], "move the shared turns to 'prompt'"),
        (["a", "b"], "make up no kind of feedback"),
        (["messages", "label"], "its last turn is the completion"),
    ],
)  # fmt: skip
def test_columns_of_no_kind_are_told_what_is_missing(columns, part):
    assert part in str(no_kind("thumbs.jsonl", columns))


@pytest.mark.parametrize("given", ["yes", "yes=", "=true", "yes=maybe", "yes=2"])
def test_a_label_map_that_maps_to_no_label_is_refused(given):
    with pytest.raises(BadConfig, match="--label-map"):
        parse_label_map(given)


def test_label_maps_and_columns_come_as_text_or_dict():
    assert parse_label_map({"up": True, -1: False}) == parse_label_map("up=true,-1=false") == {"up": 1.0, "-1": 0.0}
    assert parse_columns("prompt=a b, label=x=y") == {"prompt": "a b", "label": "x=y"}
    assert parse_columns({"prompt": "q"}) == {"prompt": "q"}
    assert parse_columns(None) is None
    assert parse_label_map("") is None


def test_a_column_map_the_wrong_way_round_is_turned_in_the_message():
    with pytest.raises(BadConfig, match=r"did you mean prompt=question\?"):
        parse_columns("question=prompt")
    with pytest.raises(BadConfig, match="did you mean 'prompt'"):
        parse_columns("promt=question")


def test_text_cells_become_labels_numbers_and_chats():
    raw = {
        "prompt": '[{"role": "user", "content": "Hi"}]',
        "completion": "[sic] 1",
        "label": "TRUE",
        "weight": "",
        "x": "1",
    }
    assert typed_row(raw) == {
        "prompt": [{"role": "user", "content": "Hi"}],
        "completion": "[sic] 1",
        "label": True,
        "x": "1",
    }
    assert typed_row({"label": "", "answer": "5"}, {"completion": "answer"}) == {"label": None, "answer": "5"}


def test_rows_go_back_to_the_columns_they_came_from():
    for kind, raw in {
        "label": label(label=0.5, weight=2.0, id="a"),
        "pair": {"prompt": ASK, "chosen": SAY, "rejected": SAY, "chosen_rating": 2.0, "tie": True},
        "rating": {"prompt": ASK, "completions": [{"message": SAY[0], "rating": 1.0}]},
    }.items():
        assert to_columns(check_row(raw, kind)) == raw


def test_texts_and_chats_of_the_same_words_are_different():
    assert content_key("Hi") != content_key([{"role": "user", "content": "Hi"}])
    named = [{"content": "Hi", "role": "user", "name": "Ann"}]
    assert content_key(named) == content_key([{"role": "user", "name": "Ann", "content": "Hi"}])
    assert content_key(named) != content_key([{"role": "user", "content": "Hi"}])
