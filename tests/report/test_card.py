"""The model card: front matter the hub accepts, and nothing of the machine it was made on."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from run_records import HELDOUT, records, simulated_metrics

from likewise.engine.config import make_config
from likewise.engine.summary import Finding, Summary
from likewise.report.card import model_card

SUMMARY = Summary([Finding("✓", "it is learning"), Finding("!", "a | b <b>bold</b> *not*"), Finding("·", "3 steps")])


def card(summary=SUMMARY, heldout=HELDOUT, **values):
    config = make_config({"model": "EleutherAI/pythia-70m", "feedback": "thumbs.jsonl"} | values)
    return model_card(config, summary, heldout, {"examples": 1841, "left out": 0})


def front(text):
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def test_the_front_matter_of_a_fully_trained_hub_model():
    assert front(card()) == {
        "base_model": "EleutherAI/pythia-70m",
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["likewise", "bco", "alignment", "human-feedback"],
    }


def test_an_adapter_is_a_peft_model_unless_it_was_merged():
    adapter, merged = front(card(lora_rank=16)), front(card(lora_rank=16, merge=True))
    assert (adapter["library_name"], adapter["base_model_relation"]) == ("peft", "adapter")
    assert (merged["library_name"], merged["base_model_relation"]) == ("transformers", "finetune")
    assert "AutoPeftModelForCausalLM" in card(lora_rank=16)
    assert "Peft" not in card(lora_rank=16, merge=True)


def test_a_local_base_model_is_called_by_its_own_name_and_stays_out_of_the_front_matter(tmp_path):
    model, feedback = tmp_path / "my-base", tmp_path / "secret" / "thumbs.jsonl"
    model.mkdir()
    text = card(model=str(model), feedback=str(feedback), output_dir=tmp_path / "better")
    assert "base_model" not in front(text)
    assert "`my-base`" in text
    assert "`thumbs.jsonl`" in text
    assert "\n# better\n" in text
    assert str(tmp_path) not in text
    assert "secret" not in text


def test_a_relative_folder_is_local_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("models/tiny").mkdir(parents=True)
    text = card(model="models/tiny")
    assert "base_model" not in front(text)
    assert "`tiny`" in text


@pytest.mark.parametrize(
    ("feedback", "datasets"),
    [("org/thumbs", ["org/thumbs"]), ("data/gone.jsonl", None), ("given rows", None), ("/no/such/rows.csv", None)],
)
def test_only_a_hub_data_set_is_named_to_the_hub(feedback, datasets):
    assert front(card(feedback=feedback)).get("datasets") == datasets


def test_every_finding_is_told_and_none_can_break_the_markdown():
    text = card()
    assert "- ✓ it is learning\n" in text
    assert "- · 3 steps\n" in text
    assert "- ! a \\| b \\<b\\>bold\\</b\\> \\*not\\*\n" in text


def test_without_held_out_feedback_the_card_says_so():
    assert "No feedback was held out" in card(heldout=None)
    assert "No feedback was held out" not in card()


def test_a_model_given_as_an_object_is_said_to_be():
    text = card(model="given", feedback="given rows")
    assert "base_model" not in front(text)
    assert "The model and the rows were given from Python" in text


def test_the_hub_client_reads_it():
    text = card(lora_rank=8)
    read = ModelCard(text)
    assert read.data.base_model == "EleutherAI/pythia-70m"
    assert read.data.library_name == "peft"
    assert "likewise align --config run.yaml --output-dir NEW" in read.text


def test_a_run_of_every_kind_has_a_card():
    for objective in ("bco", "kto", "dpo"):
        run = records(objective, metrics=simulated_metrics(objective, steps=10))
        text = model_card(run["config"], run["summary"], run["heldout"], run["facts"])
        assert front(text)["tags"][1] == objective
        assert "| batch size | 32 |" in text
        assert "| learning rate | 2e-5 |" in text
