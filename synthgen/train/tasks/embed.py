"""The whole way of an embedding student: texts and vectors in, a model out."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from synthgen.errors import SourceError, UsageError
from synthgen.train.base import require_base, source_of
from synthgen.train.checkpoints import find_checkpoint
from synthgen.train.config import Loaded
from synthgen.train.conversation import Conversation
from synthgen.train.embed import EmbeddingSteps, embed, load_embedder, save_embedder, train_embedder
from synthgen.train.metrics import Progress
from synthgen.train.reading import Dataset, read_dataset, split
from synthgen.train.student_folder import allowed, report_of, request_of
from synthgen.train.tasks.config import EmbedConfig
from synthgen.train.tasks.folder import TaskReport, publish
from synthgen.train.tasks.texts import question
from synthgen.train.tokenizers import load_tokenizer

__all__ = ["train_embedding"]

Vectors = NDArray[np.float32]
_AT_ONCE = 32  # texts the teacher embeds in one pass


def train_embedding(
    loaded: Loaded[EmbedConfig],
    dataset: Path,
    out: Path,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> TaskReport:
    """Train the embedding model of a file on a dataset.

    Raises:
        UsageError: data and file do not fit together.
        SourceError: data, teacher or base cannot be read.
        PolicyError: the data may not be used so, or the student's name breaks a duty.
        StorageError: the disk refuses.
    """
    require_base(loaded)
    config = loaded.config
    data = read_dataset(dataset) if config.teacher is not None else None
    digest = data.digest if data is not None else _file_digest(dataset)
    request = request_of(loaded, digest)
    if (there := report_of(out, request, TaskReport)) is not None:
        return there
    allowed(loaded, data)
    texts, vectors = _texts_of(loaded, data) if data is not None else _read_vectors(dataset)
    training, validation = _divided(texts, config)
    source = source_of(loaded)
    tokenizer = load_tokenizer(source)
    model = load_embedder(source, tokenizer)
    steps = EmbeddingSteps(**config.training.model_dump(), seed=config.seed)
    sides = [([texts[at] for at in side], vectors[side]) for side in (training, validation)]
    trained = train_embedder(model, tokenizer, sides[0], sides[1], steps, progress=progress)
    numbers = {
        "loss": trained.losses[-1],
        "correlation_before": trained.correlation_before,
        "correlation_after": trained.correlation_after,
    }
    report = TaskReport(
        out, config.task, True, trained.rows, trained.validation_rows, {}, numbers, allowed(loaded, data)
    )
    return publish(
        report,
        loaded,
        data,
        request,
        lambda folder: save_embedder(model, tokenizer, trained, folder),
        pipeline="sentence-similarity",
    )


def _texts_of(loaded: Loaded[EmbedConfig], data: Dataset) -> tuple[list[str], Vectors]:
    """The questions of a dataset, each once, and the teacher's vectors of them."""
    config = loaded.config
    found = (question(one, config.text) for one in data.conversations)
    texts = list(dict.fromkeys(text for text in found if text is not None))
    if not texts:
        raise UsageError(f"{loaded.where('text')}: no conversation has such a text")
    assert config.teacher is not None
    source = find_checkpoint(config.teacher, loaded.path)
    tokenizer = load_tokenizer(source)
    try:
        teacher = load_embedder(source, tokenizer).eval()
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{loaded.where('teacher')}: {config.teacher!r} cannot be loaded: {error}"
        ) from error
    with torch.no_grad():
        parts = [
            embed(teacher, tokenizer, texts[at : at + _AT_ONCE], max_length=config.training.max_length).cpu()
            for at in range(0, len(texts), _AT_ONCE)
        ]
    vectors: Vectors = torch.cat(parts).numpy()
    return texts, vectors


def _read_vectors(path: Path) -> tuple[list[str], Vectors]:
    """A Parquet or JSONL file with the columns `text` and `vector`."""
    try:
        frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_ndjson(path)
        frame = frame.select("text", "vector").drop_nulls().unique("text", keep="first", maintain_order=True)
        rows = frame["vector"].to_list()
        if len({len(row) for row in rows}) > 1:
            raise UsageError(f"{path}: its vectors differ in width")
        return frame["text"].to_list(), np.array(rows, dtype=np.float32)
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise SourceError(
            f"{path}: no file with the columns `text` and `vector`: {error}; or name `teacher` to have them computed"
        ) from error


def _divided(texts: Sequence[str], config: EmbedConfig) -> tuple[list[int], list[int]]:
    """Places of training and validation texts, decided by a hash of each."""
    if len(texts) < 2:
        raise UsageError(f"the data holds {len(texts)} different texts with vectors: similarities need more")
    place = {text: at for at, text in enumerate(texts)}
    rows = [Conversation((), (), id=text, row=text) for text in texts]
    training, validation = split(rows, config.validation_share, seed=config.seed)
    return [place[one.row] for one in training], [place[one.row] for one in validation]


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(
            f"{path}: {error.strerror}; without `teacher`, the dataset is one file with the columns `text` and `vector`"
        ) from error
