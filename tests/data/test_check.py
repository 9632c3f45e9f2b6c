"""What `check` finds, on feedback in which it was planted."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from likewise.data import read_feedback
from likewise.data.check import Lengths, check
from likewise.schema import Answer, Feedback, LabelRow, PairRow, RatingRow


def labels(rows) -> Feedback:
    return Feedback("label", rows, "thumbs.jsonl", rows_read=len(rows))


def thumbs(ups: int, downs: int, *, up="fine answer", down="sorry answer") -> list[LabelRow]:
    """Thumbs on distinct prompts, all answers of one class alike but for a number of fixed width."""
    return [LabelRow(f"ask {i:04}", f"{up if i < ups else down} {i:04}", float(i < ups)) for i in range(ups + downs)]


def levels(report) -> dict[str, str]:
    return {finding.text: finding.level for finding in report.findings}


def said(report) -> str:
    return "\n".join(f"{finding.level}: {finding.text} {finding.mend}" for finding in report.findings)


# --- verdicts --------------------------------------------------------------------------------------------------------


def test_plain_thumbs_are_fit():
    rng = np.random.default_rng(0)
    rows = [
        LabelRow(f"ask {i}", "word " * rng.integers(1, 50) + str(i), float(rng.random() < 0.8)) for i in range(1000)
    ]
    report = check(labels([*rows, LabelRow("ask 0", "another", 1 - rows[0].label)]))
    assert (report.verdict, report.findings) == ("FIT", ())


def test_one_class_only_is_not_fit_and_says_what_goes_on():
    up = check(labels(thumbs(200, 0)))
    assert up.verdict == "NOT FIT"
    assert "Every thumb is up: nothing tells a good answer from a bad one" in said(up)
    assert "--allow-one-class, or --objective sft" in said(up)
    assert "sft" not in said(check(labels(thumbs(0, 200))))


@pytest.mark.parametrize(
    "ups, downs, verdict, part",
    [
        (500, 9, "NOT FIT", "Only 9 downs: too few to learn from."),
        (500, 1, "NOT FIT", "Only 1 down: too few to learn from."),
        (500, 10, "FIT WITH CAUTION", "Only 10 downs: expect a noisy reward shift"),
        (99, 500, "FIT WITH CAUTION", "Only 99 ups: expect a noisy reward shift"),
        (3000, 100, "FIT WITH CAUTION", "downs are 3.2% of the thumbs: each of them weighs as much as 30 others."),
        (100, 100, "FIT", "No prompt has both an up and a down"),
    ],
)
def test_small_classes_lower_the_verdict(ups, downs, verdict, part):
    report = check(labels(thumbs(ups, downs, up="some answer", down="that answer")))
    assert report.verdict == verdict
    assert part in said(report)


def test_the_gravest_finding_comes_first():
    report = check(labels(thumbs(500, 9, up="a much longer answer")))
    assert [finding.level for finding in report.findings] == ["stop", "caution", "note"]


# --- counts ----------------------------------------------------------------------------------------------------------


def test_prompts_are_counted_by_the_sides_they_get():
    rows = [("a", 1), ("a", 1), ("a", 0), ("b", 1), ("c", 0), ("c", 0), ("d", 0.5)]
    report = check(labels([LabelRow(p, f"answer {i}", float(y)) for i, (p, y) in enumerate(rows)]))
    p = report.prompts
    assert (p.distinct, p.largest, p.only_up, p.only_down, p.both) == (4, 3, 1, 1, 1)
    c = report.classes
    assert (c.up, c.down, c.unsure, c.probabilities) == (3, 3, 1, 1)


def test_repeats_and_contradicting_votes_are_told_apart():
    rows = [LabelRow("a", "x", 1.0)] * 3 + [LabelRow("a", "x", 0.0), LabelRow("a", "y", 0.0), LabelRow("b", "x", 0.0)]
    report = check(labels(rows))
    assert (report.duplicates, report.contradictions) == (2, 1)


def test_many_contradictions_and_duplicates_call_for_caution():
    rows = thumbs(300, 300, up="some answer", down="that answer")
    turned = [LabelRow(r.prompt, r.completion, 1 - r.label) for r in rows[:50]]
    report = check(labels(rows + turned + rows[300:400]))
    assert (report.contradictions, report.duplicates) == (50, 100)
    found = levels(report)
    assert found["50 answers got votes that contradict each other."] == "caution"
    assert found["100 votes repeat another one exactly."] == "caution"


def test_a_pair_that_is_repeated_the_other_way_round_contradicts():
    rows = [PairRow("a", "x", "y"), PairRow("a", "y", "x"), PairRow("b", "x", "y"), PairRow("b", "x", "y")]
    report = check(Feedback("pair", rows))
    assert (report.duplicates, report.contradictions) == (1, 1)


def test_prompts_that_decide_the_thumb_are_noticed():
    rows = [LabelRow(f"ask {i % 50:02}", f"answer {i:03}", float(i % 50 < 25)) for i in range(400)]
    report = check(labels(rows))
    assert "Prompts are asked 8.0 times each, and 100% of them get thumbs of one side only" in said(report)


def test_a_prompt_that_rules_the_file_is_noticed():
    rows = [
        *thumbs(100, 100, up="some", down="that"),
        *(LabelRow("hi", f"hello {i:03}", i % 2 * 1.0) for i in range(100)),
    ]
    assert "One prompt has 33% of all rows." in said(check(labels(rows)))


def test_pairs_without_a_difference_are_counted():
    rows = [PairRow("a", "x", "x"), PairRow("b", "x", "y", tie=True), PairRow("c", "x", "y", 1.0, 4.0)]
    report = check(Feedback("pair", rows))
    assert (report.pairs.ties, report.pairs.identical, report.pairs.against_ratings) == (1, 1, 1)
    assert report.verdict == "NOT FIT"
    assert "Only 1 pair with a better and a worse answer" in said(report)
    assert "In 1 pair the chosen answer has the lower rating" in said(report)


def test_ratings_are_counted_by_grade():
    rows = [RatingRow(f"p{i}", (Answer("a", 4), Answer("b", i % 4), Answer("c", i % 4))) for i in range(40)]
    rows.append(RatingRow("flat", (Answer("a", 2), Answer("b", 2))))
    report = check(Feedback("rating", rows))
    assert report.ratings.histogram == {"0": 20, "1": 20, "2": 22, "3": 20, "4": 40}
    assert (report.ratings.top_grade, report.ratings.without_difference) == (4.0, 1)
    assert report.ratings.top_share == pytest.approx(40 / 122)
    assert (report.rows, report.answers) == (41, 122)


def test_many_grades_are_binned_and_a_rare_top_grade_noticed():
    rows = [RatingRow(f"p{i}", (Answer("a", i / 10), Answer("b", i / 20))) for i in range(1, 101)]
    report = check(Feedback("rating", rows))
    assert len(report.ratings.histogram) == 10
    assert sum(report.ratings.histogram.values()) == 200
    assert "The top grade (10), which counts as a thumb up, has 0.5% of the answers." in said(report)


def test_equal_ratings_are_not_fit():
    report = check(Feedback("rating", [RatingRow("p", (Answer("a", 3), Answer("b", 3)))] * 30))
    assert report.verdict == "NOT FIT"
    assert "Every rating is 3" in said(report)


def test_bad_rows_are_grouped_by_reason_and_empty_answers_counted():
    good = [{"prompt": f"ask {i}", "completion": f"answer {i:03}", "label": i % 2} for i in range(300)]
    bad = [{**good[0], "completion": ""}] * 5 + [{**good[0], "label": None}] + [{**good[0], "prompt": ""}]
    report = check(read_feedback(good + bad, skip_bad_rows=True))
    assert [(b.reason, b.count, b.rows) for b in report.bad_rows] == [
        ("'completion' is empty", 5, (301, 302, 303)),
        ("'label' is null; expected true or false", 1, (306,)),
        ("'prompt' is empty", 1, (307,)),
    ]
    assert report.empty_answers == 5
    assert report.verdict == "FIT WITH CAUTION"
    assert "7 rows of 307 cannot be used, for 3 reasons." in said(report)


def test_a_column_that_is_nearly_an_optional_one_is_asked_about():
    rows = [{"prompt": f"{i}", "completion": f"{i:03}", "label": i % 2, "wieght": 2, "lang": "en"} for i in range(300)]
    report = check(read_feedback(rows))
    assert report.unused_columns == ("wieght", "lang")
    assert "Column 'wieght' is not used; was 'weight' meant? --columns weight=wieght" in said(report)


# --- length ----------------------------------------------------------------------------------------------------------


def test_lengths_are_the_percentiles_of_the_texts():
    rows = [LabelRow("x" * n, "y" * (2 * n), float(n % 2)) for n in range(1, 101)]
    report = check(labels(rows))
    assert report.characters["prompt"] == Lengths(50.5, float(np.percentile(np.arange(1, 101), 95)), 100)
    assert report.characters["up"].longest == 198
    assert report.characters["down"].longest == 200


def test_an_answer_of_several_turns_counts_all_its_words():
    turns = [{"role": "assistant", "content": "abc"}, {"role": "tool", "content": "de"}]
    rows = [LabelRow([{"role": "user", "content": "Hi"}], turns, 1.0)]
    assert check(labels(rows)).characters["answer"].longest == len("abc\nde")


def test_length_that_tells_the_thumb_is_warned_of():
    rng = np.random.default_rng(2)
    sizes = rng.normal(100, 30, 600).clip(1) + 40 * (np.arange(600) % 2)
    rows = [LabelRow(f"{i}", "y" * int(size), float(i % 2)) for i, size in enumerate(sizes)]
    report = check(labels(rows))
    # Two normals with the same spread, 40 apart: AUC = Phi(40 / (30 * sqrt 2)) = Phi(0.943) = 0.827.
    assert report.length_bias.score == pytest.approx(0.827, abs=0.04)
    assert "Length alone tells much: people like the longer answer" in said(report)
    assert report.verdict == "FIT WITH CAUTION"


def test_pairs_and_ratings_measure_length_within_the_prompt():
    pairs = [
        PairRow(f"{i}", "long answer", "short") if i % 4 else PairRow(f"{i}", "no", "long answer") for i in range(400)
    ]
    bias = check(Feedback("pair", pairs)).length_bias
    assert (bias.score, bias.low, bias.high) == pytest.approx((0.75, 0.7054, 0.7899), abs=1e-4)  # Wilson, by hand
    rated = [RatingRow(f"{i}", (Answer("aaa", 3), Answer("bb", 2), Answer("cc", 1))) for i in range(5)]
    # Longer and better: a-b, a-c; b-c is even: 2.5 of 3.
    assert check(Feedback("rating", rated)).length_bias.score == pytest.approx(2.5 / 3)


# --- tokens ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    """One token a word; an end token after every answer."""
    words = Tokenizer(WordLevel({"<end>": 0, "<unk>": 1, "w": 2}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", unk_token="<unk>")


def words(count: int) -> str:
    return " ".join(["w"] * count)


def test_limits_are_counted_with_the_tokenizer_before_anything_is_trimmed(tokenizer):
    rows = [LabelRow(words(10), " " + words(4), float(i % 2), row=i + 1) for i in range(300)]
    rows += [LabelRow(words(200), " " + words(4), 1.0, row=301), LabelRow(words(10), " " + words(500), 0.0, row=302)]
    report = check(labels(rows), tokenizer, max_tokens=128, max_prompt_tokens=64)
    assert (report.limits.trimmed_prompts, report.limits.skipped) == (1, 1)
    assert report.limits.skipped_rows[0][0] == 302
    assert report.tokens["prompt"] == Lengths(10.0, 10.0, 200)
    assert report.tokens["answer"] == Lengths(5.0, 5.0, 501)
    assert "1 row of 302 has an answer that cannot fit in 128 tokens, and an answer is never cut." in said(report)


def test_limits_that_leave_out_most_rows_are_not_fit(tokenizer):
    rows = [LabelRow("w", " " + words(200), float(i % 2)) for i in range(300)]
    report = check(labels(rows), tokenizer, max_tokens=128, max_prompt_tokens=64)
    assert report.verdict == "NOT FIT"


# --- the report as data ----------------------------------------------------------------------------------------------


def test_the_report_is_json_with_the_verdict_first():
    data = json.loads(json.dumps(check(labels(thumbs(100, 100))).to_dict()))
    assert next(iter(data)) == "verdict"
    assert data["classes"] == {"up": 100, "down": 100, "unsure": 0, "probabilities": 0}


@pytest.mark.shared
def test_real_thumbs_have_the_counts_their_notes_give(shared_data):
    report = check(read_feedback(shared_data / "hh_harmless" / "feedback.jsonl", skip_bad_rows=True))
    assert (report.classes.up, report.classes.down, report.empty_answers) == (950 - 4, 891, 4)
    ratings = check(read_feedback(shared_data / "alpaca_eval_ratings" / "train.jsonl.gz"))
    assert ratings.ratings.histogram == {"0": 1652, "1": 1631, "2": 1667, "3": 1632, "4": 1638}
    assert ratings.verdict == "FIT WITH CAUTION"
