"""Class-level soft labels, calibration, and classifiers that learn."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    LlamaForSequenceClassification,
    PreTrainedModel,
)

from synthgen.errors import SourceError, UsageError
from synthgen.train.calibration import calibration_error, fit_temperature
from synthgen.train.class_labels import choices, one_hot, votes
from synthgen.train.classify import ClassifierSteps, Row, load_classifier, padded, train_classifier
from tests.chat_templates import tokenizer
from tests.tiny_models import tiny_llama

torch.set_num_threads(1)  # threads that share a core spin: minutes instead of seconds

TOKENIZER = tokenizer("chatml")
CLASSES = ("animal", "tool", "city")
WORDS = {
    "animal": ["cat", "dog", "horse", "cow"],
    "tool": ["saw", "drill", "axe", "file"],
    "city": ["Rome", "Oslo", "Bonn", "Lima"],
}


# --- labels


def test_votes_are_shares_of_the_answers() -> None:
    assert votes(["tool", " Tool\n", "city", "nonsense"], CLASSES).tolist() == pytest.approx(
        [0, 2 / 3, 1 / 3]
    )
    assert one_hot("city", CLASSES).tolist() == [0, 0, 1]


def test_votes_for_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no answer names"):
        votes(["a", "b"], CLASSES)


def logs(*probabilities: float) -> list[float]:
    return [math.log(one) for one in probabilities]


def test_choices_are_read_off_the_first_token() -> None:
    choice = choices(["tool"], [["tool", "animal", "the"]], [logs(0.6, 0.2, 0.2)], CLASSES)

    assert choice.probabilities.tolist() == pytest.approx([0.25, 0.75, 0])
    assert choice.covered == pytest.approx(0.8)


def test_choices_follow_names_that_begin_alike() -> None:
    names = ("billing_error", "billing_refund", "other")
    tokens = ["billing", "_", "refund"]
    tops = [["billing", "other"], ["_"], ["refund", "error"]]
    logprobs = [logs(0.9, 0.1), logs(1.0), logs(0.7, 0.3)]

    choice = choices(tokens, tops, logprobs, names)

    assert choice.probabilities.tolist() == pytest.approx([0.27, 0.63, 0.1])


def test_choices_inside_json_begin_after_the_key() -> None:
    tokens = ["{", '"category": "', "ci", 'ty"}']
    tops = [["{"], ['"category": "'], ["ci", "to"], ['ty"}']]

    choice = choices(
        tokens, tops, [logs(0.5), logs(0.5), logs(0.8, 0.2), logs(1.0)], CLASSES, before='"category": "'
    )

    assert choice.probabilities.tolist() == pytest.approx([0, 0.2, 0.8])


def test_a_name_that_begins_another_needs_its_end() -> None:
    names = ("spam", "spammer")

    short = choices(["spam", "\n"], [["spam"], ["\n", "mer"]], [logs(1.0), logs(0.75, 0.25)], names)

    assert short.probabilities.tolist() == pytest.approx([0.75, 0.25])


def test_an_answer_that_names_no_class_is_refused() -> None:
    with pytest.raises(ValueError, match="does not name"):
        choices(["hm"], [["hm"]], [logs(1.0)], CLASSES)


# --- calibration


def test_a_calibrated_classifier_has_no_error() -> None:
    """A hundred rows at confidence 0.8, of which 80 are right."""
    logits = np.tile([math.log(4), 0.0], (100, 1))
    labels = np.array([0] * 80 + [1] * 20)

    assert calibration_error(logits, labels) == pytest.approx(0, abs=1e-12)
    assert calibration_error(logits * 10, labels) == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize("factor", [0.25, 1.0, 6.0])
def test_the_temperature_undoes_a_factor(factor: float) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 3)) * 2
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([random.choice(3, p=one) for one in probabilities])

    assert fit_temperature(logits * factor, labels) == pytest.approx(factor, rel=0.1)


# --- training


def rows(*, noisy: bool) -> tuple[list[Row], list[Row]]:
    """Sentences about things; labels are votes of five answers, one of which may be wrong."""
    made = []
    random = np.random.default_rng(1)
    for name, words in WORDS.items():
        for word in words:
            for sentence in ("I saw a {}.", "Where is the {}?", "The {} is old.", "My {} again!"):
                other = str(random.choice([one for one in CLASSES if one != name]))
                answers = [name] * 4 + [other if noisy else name]
                made.append(Row(sentence.format(word), tuple(votes(answers, CLASSES).tolist())))
    order = random.permutation(len(made)).tolist()
    return [made[at] for at in order[:36]], [made[at] for at in order[36:]]


def encoder() -> PreTrainedModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,  # at 0.02, a width of 32 keeps every text alike
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=len(CLASSES),
        pad_token_id=TOKENIZER.pad_token_id,
        id2label=dict(enumerate(CLASSES)),
    )
    return BertForSequenceClassification(config)


def causal(folder: Path) -> PreTrainedModel:
    tiny_llama(len(TOKENIZER), seed=0).save_pretrained(folder)
    torch.manual_seed(0)
    return load_classifier(str(folder), CLASSES, TOKENIZER)


STEPS = ClassifierSteps(epochs=25, batch_size=8, learning_rate=3e-3)


@pytest.mark.parametrize("kind", ["encoder", "causal"])
def test_a_classifier_learns_from_votes(kind: str, tmp_path: Path) -> None:
    model = encoder() if kind == "encoder" else causal(tmp_path / "base")
    train, validation = rows(noisy=True)

    report = train_classifier(model, TOKENIZER, train, validation, STEPS, tmp_path / "student")

    assert report.chance <= 0.5
    assert report.accuracy >= 0.8
    assert report.losses[-1] < report.losses[0]
    assert json.loads((tmp_path / "student/classifier.json").read_text())["accuracy"] == report.accuracy


def test_a_saved_classifier_is_calibrated_by_itself(tmp_path: Path) -> None:
    train, validation = rows(noisy=False)
    report = train_classifier(encoder(), TOKENIZER, train, validation, STEPS, tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    logits = []
    for row in validation:
        ids = torch.tensor([TOKENIZER(row.text)["input_ids"]])
        logits.append(loaded(input_ids=ids).logits.detach().double().numpy()[0])
    labels = np.array([int(np.argmax(row.probabilities)) for row in validation])

    assert calibration_error(np.array(logits), labels) == pytest.approx(report.error_after, abs=1e-4)
    assert report.temperature != pytest.approx(1.0, abs=1e-3)
    assert loaded.config.id2label == dict(enumerate(CLASSES))


def test_padding_changes_no_decision(tmp_path: Path) -> None:
    model = causal(tmp_path).eval()
    ids = [
        TOKENIZER(text)["input_ids"]
        for text in ("I saw a cat.", "Where is the drill, and the axe, and the file?")
    ]

    together = model(**padded(ids, model)).logits[0]

    assert isinstance(model, LlamaForSequenceClassification)
    torch.testing.assert_close(together, model(**padded(ids[:1], model)).logits[0])


def test_texts_are_never_cut() -> None:
    row = Row("word " * 50, (1.0, 0.0, 0.0))

    with pytest.raises(UsageError, match="1 of 1 texts have more than 8 tokens"):
        train_classifier(encoder(), TOKENIZER, [row], [row], ClassifierSteps(max_length=8))


def test_a_row_holds_a_distribution() -> None:
    with pytest.raises(ValueError, match="not a distribution"):
        Row("x", (0.5, 0.2))


def test_one_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs two or more"):
        load_classifier("x", ["a"], TOKENIZER)


def test_a_missing_base_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be loaded as a classifier"):
        load_classifier(str(tmp_path / "none"), CLASSES, TOKENIZER)
