"""Datasets on disk: ours, written and published; anybody's, read.

write    one file: whole or absent, same rows same bytes
staging  rows wave by wave -> final shards, train and test
publish  shards and texts become visible under one manifest
card     the README.md of a dataset
read     foreign Parquet and JSONL -> batches of records (files: paths and rows; formats: one row)
"""

from synthgen.dataset.card import (
    CardFilters,
    CardInfo,
    CardPolicy,
    CardPrompt,
    CardTeacher,
    configs_card,
    dataset_card,
)
from synthgen.dataset.files import BadRow
from synthgen.dataset.publish import check_target, is_published, publish, read_manifest, verify
from synthgen.dataset.read import Batch, detect_shape, open_inputs
from synthgen.dataset.staging import Staging
from synthgen.dataset.write import write_bytes

__all__ = [
    "BadRow",
    "Batch",
    "CardFilters",
    "CardInfo",
    "CardPolicy",
    "CardPrompt",
    "CardTeacher",
    "Staging",
    "check_target",
    "configs_card",
    "dataset_card",
    "detect_shape",
    "is_published",
    "open_inputs",
    "publish",
    "read_manifest",
    "verify",
    "write_bytes",
]
