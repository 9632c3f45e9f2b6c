"""Conversions, against cases worked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from likewise.data.convert import (
    convert,
    labels_to_pairs,
    labels_to_ratings,
    pairs_to_labels,
    pairs_to_ratings,
    ratings_to_labels,
    ratings_to_pairs,
)
from likewise.errors import BadConfig, BadFeedback
from likewise.schema import Answer, Feedback, LabelRow, PairRow, RatingRow


def rated(prompt: str, *ratings: float, **options) -> RatingRow:
    """A group whose answers are called a, b, c in the order given."""
    return RatingRow(prompt, tuple(Answer("abcdefgh"[i], r) for i, r in enumerate(ratings)), **options)


def sides(rows) -> list[tuple[str, str]]:
    return [(row.chosen, row.rejected) for row in rows]


# --- ratings → labels ------------------------------------------------------------------------------------------------


def test_ratings_become_thumbs_from_the_top_grade_of_the_whole_file():
    made = ratings_to_labels([rated("p", 4, 3, weight=2.0, id="x", row=7), rated("q", 3, 0)])
    assert made.dropped == 0
    assert made.rows == [
        LabelRow("p", "a", 1.0, 2.0, "x/1"),
        LabelRow("p", "b", 0.0, 2.0, "x/2"),
        LabelRow("q", "a", 0.0),
        LabelRow("q", "b", 0.0),
    ]
    assert made.rows[1].row == 7


def test_a_threshold_counts_itself_as_up():
    assert [row.label for row in ratings_to_labels([rated("p", 4, 3, 2.9)], threshold=3).rows] == [1.0, 1.0, 0.0]


# --- ratings → pairs -------------------------------------------------------------------------------------------------

# Answers a..e with 1, 4, 3, 3, 4: ranked b e c d a.
GROUP = rated("p", 1, 4, 3, 3, 4)


def test_best_and_worst_make_one_pair_that_keeps_the_ratings():
    made = ratings_to_pairs([GROUP], "best_worst")
    assert made == ([PairRow("p", "b", "a", 4.0, 1.0)], 0)


def test_neighbours_in_rank_make_pairs_but_for_equals():
    made = ratings_to_pairs([GROUP], "adjacent")
    assert sides(made.rows) == [("e", "c"), ("d", "a")]
    assert made.dropped == 2  # b-e and c-d are equal


def test_all_pairs_are_those_with_different_ratings():
    made = ratings_to_pairs([GROUP], "all")
    assert sides(made.rows) == [(x, y) for x in "be" for y in "cda"] + [("c", "a"), ("d", "a")]
    assert made.dropped == 2


def test_groups_without_a_difference_are_dropped_and_counted():
    assert ratings_to_pairs([rated("p", 2, 2), rated("q", 2)], "best_worst") == ([], 2)


def test_the_worst_is_the_first_of_the_lowest_grade():
    assert sides(ratings_to_pairs([rated("p", 1, 1, 4, 4)]).rows) == [("c", "a")]


@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=8), min_size=1, max_size=4))
def test_all_pairs_agree_with_a_brute_force_count(groups):
    made = ratings_to_pairs([rated(str(i), *group) for i, group in enumerate(groups)], "all")
    expected = sum(x > y for group in groups for x in group for y in group)
    assert len(made.rows) == expected
    assert all(row.chosen_rating > row.rejected_rating for row in made.rows)


# --- pairs → labels, ratings -----------------------------------------------------------------------------------------


def test_both_sides_of_a_pair_become_thumbs_and_ties_are_left_out():
    made = pairs_to_labels([PairRow("p", "good", "bad", weight=3.0, id="7", row=2), PairRow("q", "x", "y", tie=True)])
    assert made.dropped == 1
    assert made.rows == [LabelRow("p", "good", 1.0, 3.0, "7/chosen"), LabelRow("p", "bad", 0.0, 3.0, "7/rejected")]


def test_pairs_become_groups_of_two():
    pairs = [PairRow("p", "x", "y", 4.0, 1.0), PairRow("q", "x", "y"), PairRow("r", "x", "y", tie=True)]
    ratings = [[a.rating for a in row.completions] for row in pairs_to_ratings(pairs).rows]
    assert ratings == [[4.0, 1.0], [1.0, 0.0], [0.5, 0.5]]


# --- labels → pairs, ratings -----------------------------------------------------------------------------------------

VOTES = [
    LabelRow("p", "up1", 1.0, id="a"),
    LabelRow("q", "alone", 1.0),
    LabelRow("p", "down1", 0.0, weight=3.0, id="b"),
    LabelRow("p", "up2", 1.0),
    LabelRow("p", "up3", 1.0),
    LabelRow("p", "down2", 0.0),
]


def test_matched_pairs_use_every_answer_and_start_over_on_the_shorter_side():
    made = labels_to_pairs(VOTES)
    assert sides(made.rows) == [("up1", "down1"), ("up2", "down2"), ("up3", "down1")]
    assert made.dropped == 1
    assert made.rows[0] == PairRow("p", "up1", "down1", weight=2.0, id="a/b")


def test_matched_pairs_start_over_on_ups_too():
    votes = [LabelRow("p", "up", 1.0), *(LabelRow("p", f"down{i}", 0.0) for i in range(3))]
    assert sides(labels_to_pairs(votes).rows) == [("up", "down0"), ("up", "down1"), ("up", "down2")]


def test_all_pairs_of_labels_are_every_up_with_every_down():
    made = labels_to_pairs(VOTES, "all")
    assert sides(made.rows) == [(f"up{u}", f"down{d}") for u in (1, 2, 3) for d in (1, 2)]


def test_soft_labels_take_a_side_and_stay_as_ratings():
    votes = [LabelRow("p", "x", 0.9), LabelRow("p", "y", 0.2), LabelRow("p", "z", 0.5)]
    assert labels_to_pairs(votes).rows == [PairRow("p", "x", "y", 0.9, 0.2)]


def test_an_answer_voted_both_ways_makes_no_pair_with_itself():
    assert labels_to_pairs([LabelRow("p", "x", 1.0), LabelRow("p", "x", 0.0)]) == ([], 1)


def test_chat_prompts_are_matched_by_their_words():
    ask = [{"role": "user", "content": "Hi"}]
    votes = [LabelRow(list(ask), "x", 1.0), LabelRow([dict(ask[0])], "y", 0.0)]
    assert sides(labels_to_pairs(votes).rows) == [("x", "y")]


def test_thumbs_that_share_a_prompt_make_a_group():
    made = labels_to_ratings(VOTES)
    assert made.dropped == 1
    assert [(a.completion, a.rating) for a in made.rows[0].completions] == [
        ("up1", 1.0), ("down1", 0.0), ("up2", 1.0), ("up3", 1.0), ("down2", 0.0)
    ]  # fmt: skip


@given(st.lists(st.builds(PairRow, st.text(max_size=2), st.just("good"), st.just("bad")), min_size=1, max_size=9))
def test_pairs_survive_the_way_through_thumbs(pairs):
    back = labels_to_pairs(pairs_to_labels(pairs).rows).rows
    assert sorted(row.prompt for row in back) == sorted(row.prompt for row in pairs)


# --- convert ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, rows, to, options, count, note",
    [
        ("pair", [PairRow("p", "x", "y")] * 1841, "label", {}, 3682, "1,841 pairs → 3,682 thumbs (both sides)"),
        ("pair", [PairRow("p", "x", "y"), PairRow("p", "x", "y", tie=True)], "label", {}, 2,
         "2 pairs → 2 thumbs (both sides); 1 tie left out"),
        ("label", VOTES, "pair", {}, 3,
         "6 thumbs → 3 pairs (matched); 1 prompt without both an up and a down left out"),
        ("label", VOTES, "group", {}, 1, "6 thumbs → 1 group by prompt; 1 prompt with a single answer left out"),
        ("rating", [GROUP], "label", {}, 5,
         "5 rated answers → thumbs: 2 up (rating ≥ 4, the top grade), the others down"),
        ("rating", [GROUP], "label", {"threshold": 3}, 5,
         "5 rated answers → thumbs: 4 up (rating ≥ 3), the others down"),
        ("rating", [GROUP], "pair", {}, 1, "1 rated prompt → 1 pair (best and worst)"),
        ("rating", [GROUP], "group", {}, 1, ""),
        ("pair", [PairRow("p", "x", "y")], "pair", {}, 1, ""),
        ("pair", [PairRow("p", "x", "y")], "rating", {}, 1, "1 pair → 1 group of two"),
    ],
)  # fmt: skip
def test_convert_says_in_one_line_what_it_did(kind, rows, to, options, count, note):
    made, said = convert(Feedback(kind, rows, "f.jsonl"), to, **options)
    assert (made.kind, len(made), said) == ("rating" if to == "group" else to, count, note)
    assert made.source == "f.jsonl"


@pytest.mark.parametrize(
    "kind, rows, to, parts",
    [
        ("label", [LabelRow("p", "x", 1.0), LabelRow("q", "y", 0.0)], "pair",
         ["its 2 thumbs cannot make pairs: none of its 2 prompts", "--objective bco, kto or bce", "chosen, rejected"]),
        ("label", [LabelRow("p", "x", 1.0), LabelRow("q", "y", 0.0)], "group", ["no two of them share a prompt"]),
        ("rating", [rated("p", 2, 2)], "pair", ["no prompt has two answers with different ratings"]),
        ("pair", [PairRow("p", "x", "y", tie=True)], "label", ["all 1 pairs are ties"]),
    ],
)  # fmt: skip
def test_where_nothing_can_be_made_the_error_says_what_to_do(kind, rows, to, parts):
    with pytest.raises(BadFeedback) as caught:
        convert(Feedback(kind, rows, "f.jsonl"), to)
    assert str(caught.value).startswith("f.jsonl: ")
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "kind, to, options, part",
    [
        (
            "pair",
            "label",
            {"threshold": 3.0},
            "--threshold turns ratings into labels; here pair rows become label rows",
        ),
        ("rating", "pair", {"how": "matched"}, "--how matched: expected best_worst, adjacent, all"),
        ("label", "pair", {"how": "adjacent"}, "--how adjacent: expected matched, all"),
        ("pair", "label", {"how": "all"}, "--how all: it says how to make pairs"),
        ("pair", "lable", {}, "--to lable: expected label, pair or rating; did you mean 'label'?"),
    ],
)
def test_options_that_do_not_belong_are_refused(kind, to, options, part):
    rows = {"pair": [PairRow("p", "x", "y")], "rating": [GROUP], "label": VOTES}[kind]
    with pytest.raises(BadConfig) as caught:
        convert(Feedback(kind, rows), to, **options)
    assert part in str(caught.value)
