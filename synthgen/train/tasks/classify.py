"""The whole way of a classifier: a run in, a calibrated model out.

Rejected: cutting validation rows by text. All texts of a source row are on one side, as everywhere in the trainer.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from synthgen.train.base import require_base, source_of
from synthgen.train.classify import ClassifierSteps, Row, load_classifier, save_classifier, train_classifier
from synthgen.train.config import Loaded
from synthgen.train.conversation import Conversation
from synthgen.train.metrics import Progress
from synthgen.train.reading import read_dataset, split
from synthgen.train.student_folder import allowed, report_of, request_of
from synthgen.train.tasks.config import ClassifyConfig
from synthgen.train.tasks.folder import TaskReport, publish
from synthgen.train.tasks.labels import class_rows
from synthgen.train.tokenizers import load_tokenizer

__all__ = ["train_classification"]


def train_classification(
    loaded: Loaded[ClassifyConfig],
    dataset: Path,
    out: Path,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> TaskReport:
    """Train the classifier of a file on a dataset.

    Raises:
        UsageError: data, classes and base do not fit together.
        SourceError: data or base cannot be read.
        PolicyError: the data may not be used so, or the student's name breaks a duty.
        StorageError: the disk refuses.
    """
    config = loaded.config
    require_base(loaded)
    data = read_dataset(dataset)
    request = request_of(loaded, data.digest)
    if (there := report_of(out, request, TaskReport)) is not None:
        return there
    allowed(loaded, data)
    labelled = class_rows(data, config, loaded.path)
    of_root = [Conversation((), (), id=root, row=root) for root in dict.fromkeys(labelled.roots)]
    held_out = {one.row for one in split(of_root, config.validation_share, seed=config.seed)[1]}
    training: list[Row] = []
    validation: list[Row] = []
    for row, root in zip(labelled.rows, labelled.roots, strict=True):
        (validation if root in held_out else training).append(row)
    source = source_of(loaded)
    tokenizer = load_tokenizer(source)
    torch.manual_seed(config.seed)  # its head is drawn: the same file is the same student
    model = load_classifier(source, config.classes, tokenizer)
    steps = ClassifierSteps(**config.training.model_dump(), seed=config.seed)
    trained = train_classifier(model, tokenizer, training, validation, steps, progress=progress)
    report = TaskReport(
        out,
        config.task,
        True,
        trained.rows,
        trained.validation_rows,
        labelled.refused,
        {
            "answers": float(labelled.answers),
            "loss": trained.losses[-1],
            "accuracy": trained.accuracy,
            "chance": trained.chance,
            "temperature": trained.temperature,
            "calibration_error_before": trained.error_before,
            "calibration_error_after": trained.error_after,
        },
        allowed(loaded, data),
    )
    return publish(
        report,
        loaded,
        data,
        request,
        lambda folder: save_classifier(model, tokenizer, trained, folder),
        pipeline="text-classification",
    )
