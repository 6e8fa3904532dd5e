"""An embedding student learns which texts its teacher finds alike."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModel, PreTrainedModel

from synthgen.errors import UsageError
from synthgen.train.embed import EmbeddingSteps, _ranks, embed, load_embedder, train_embedder
from tests.chat_templates import tokenizer
from tests.tiny_models import tiny_llama

torch.set_num_threads(1)  # threads that share a core spin: minutes instead of seconds

TOKENIZER = tokenizer("chatml")
THINGS = ["cat", "saw", "Rome", "sea"]
STARTS = ["I saw a", "Where is the", "The old", "My own", "No", "Take this", "One more", "What a"]
ENDS = [".", " again!", " is here.", " and so on.", "?"]
SENTENCES = [f"{start} {{}}{end}" for start in STARTS for end in ENDS]


def embedder(folder: Path) -> PreTrainedModel:
    tiny_llama(len(TOKENIZER), seed=0, initializer_range=0.2).save_pretrained(folder)
    return load_embedder(str(folder), TOKENIZER)


def rows(sentences: list[str]) -> tuple[list[str], NDArray[np.float32]]:
    """A teacher of width 12 to whom sentences about one thing are alike."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(len(THINGS), 12))
    texts, vectors = [], []
    for at, thing in enumerate(THINGS):
        for sentence in sentences:
            texts.append(sentence.format(thing))
            vectors.append(centres[at] + 0.1 * random.normal(size=12))
    return texts, np.array(vectors, dtype=np.float32)


def test_a_student_takes_over_its_teachers_similarities(tmp_path: Path) -> None:
    steps = EmbeddingSteps(epochs=20, batch_size=32, learning_rate=3e-3)

    report = train_embedder(
        embedder(tmp_path / "base"),
        TOKENIZER,
        rows(SENTENCES[::2]),
        rows(SENTENCES[1::4]),
        steps,
        tmp_path / "out",
    )

    assert report.correlation_after > report.correlation_before + 0.2
    assert report.losses[-1] < 0.2 * report.losses[0]
    text = ["Take the cat away."]
    loaded = AutoModel.from_pretrained(tmp_path / "out").eval()
    assert embed(loaded, TOKENIZER, text).shape == (1, 32)


def test_padding_changes_no_vector(tmp_path: Path) -> None:
    model = embedder(tmp_path).eval()

    together = embed(model, TOKENIZER, ["The cat.", "The cat is old, and so is the saw."])[0]

    torch.testing.assert_close(together, embed(model, TOKENIZER, ["The cat."])[0], rtol=1e-4, atol=1e-5)


def test_equal_values_share_their_rank() -> None:
    assert _ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0.0, 2.5, 1.0]


@pytest.mark.parametrize(
    ("count", "value", "said"),
    [(2, 1.0, "validation: 2 texts, and similarities need 3"), (3, np.nan, "validation: a vector holds")],
)
def test_validation_rows_that_measure_nothing_are_refused(
    count: int, value: float, said: str, tmp_path: Path
) -> None:
    texts, vectors = rows(SENTENCES[:2])
    few = (texts[:count], vectors[:count] * np.float32(value))

    with pytest.raises(UsageError, match=said):
        train_embedder(embedder(tmp_path), TOKENIZER, (texts, vectors), few, EmbeddingSteps())


def test_a_vector_for_each_text_is_needed(tmp_path: Path) -> None:
    texts, vectors = rows(SENTENCES[:2])

    with pytest.raises(UsageError, match="8 texts with 7 vectors"):
        train_embedder(
            embedder(tmp_path), TOKENIZER, (texts, vectors[:-1]), (texts, vectors), EmbeddingSteps()
        )
