"""The model cards: metadata as the Hub reads it, and the same figures as in their tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from refocus_select.selectors.card import model_card
from refocus_select.train_selector.report import card_facts
from tests.models.tiny import feature_model

WEIGHTS = Path(__file__).parents[1] / "weights"


def read(text):
    card = ModelCard(text)
    assert card.data.library_name == "refocus-select"
    assert card.data.language == ["en"]
    return card


@pytest.mark.parametrize("name", ["mini", "mini-policy"])
def test_cards_of_the_package(name):
    card = read((WEIGHTS / name / "README.md").read_text("utf-8"))
    assert card.data.license == "apache-2.0"
    assert card.data.model_name == name
    for result in card.data.eval_results:  # the figures of the metadata stand in the card's tables
        cells = [cell.strip("* ") for cell in card.text.replace("\n", "|").split("|")]
        assert any(cell.startswith(f"{result.metric_value:.3f}"[1:].rstrip("0")) for cell in cells), result


def report(name="owner/questions"):
    row = {"num_frames": 4, "policy": {"mean": 0.61239}}
    return {"accuracy": [row], "questions": {"train": {"name": name}, "test": {"name": "held: out\n#1"}}}


def test_cards_of_trained_policies():
    facts = card_facts(report(), encoder="google/siglip2-base-patch16-224")
    card = read(model_card(feature_model(question_hidden_size=6), "me/policy", training="## Training", facts=facts))
    assert card.data.base_model == "google/siglip2-base-patch16-224"
    assert card.data.datasets == ["owner/questions"]
    assert card.data.license == "unknown"  # nobody else than who publishes it can say
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_name, result.metric_value) == ("accuracy", "accuracy, 4 frames", 0.6124)
    assert result.dataset_name == "held: out #1"


def test_names_that_are_not_of_the_hub_are_left_out():
    card = read(
        model_card(feature_model(question_hidden_size=6), "x: [y", facts=card_facts(report("a.jsonl"), encoder="mini"))
    )
    assert card.data.base_model is None
    assert card.data.datasets is None
    assert card.data.model_name == "x: [y"


def test_a_card_without_facts():
    assert read(model_card(feature_model(question_hidden_size=6), "plain")).data.eval_results is None
