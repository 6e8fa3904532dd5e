"""Datasets on disk: ours, written and published; anybody's, read.

write    one file: whole or absent, same rows same bytes
staging  rows wave by wave -> final shards, train and test
publish  shards and texts become visible under one manifest
card     the README.md of a dataset
read     foreign Parquet and JSONL -> batches of records (files: paths and rows; formats: one row)
tables   foreign Parquet and JSONL -> frames with their own columns, and back (table_staging)
scratch  intermediate results of a long computation
"""

from synthgen.dataset.about import (
    CardFile,
    CardFilters,
    CardInfo,
    CardPolicy,
    CardPrompt,
    CardTeacher,
    CardTerms,
    CardUse,
)
from synthgen.dataset.ai_act import ai_act_summary
from synthgen.dataset.card import configs_card, dataset_card
from synthgen.dataset.croissant import croissant
from synthgen.dataset.files import BadRow, find_inputs
from synthgen.dataset.publish import check_target, is_published, publish, read_manifest, verify
from synthgen.dataset.read import Batch, detect_shape, open_inputs
from synthgen.dataset.scratch import Scratch, TextFile
from synthgen.dataset.spdx import spdx
from synthgen.dataset.staging import Staging
from synthgen.dataset.table_staging import TableStaging
from synthgen.dataset.tables import Table, read_tables, tables_schema
from synthgen.dataset.write import write_bytes

__all__ = [
    "BadRow",
    "Batch",
    "CardFile",
    "CardFilters",
    "CardInfo",
    "CardPolicy",
    "CardPrompt",
    "CardTeacher",
    "CardTerms",
    "CardUse",
    "Scratch",
    "Staging",
    "Table",
    "TableStaging",
    "TextFile",
    "ai_act_summary",
    "check_target",
    "configs_card",
    "croissant",
    "dataset_card",
    "detect_shape",
    "find_inputs",
    "is_published",
    "open_inputs",
    "publish",
    "read_manifest",
    "read_tables",
    "spdx",
    "tables_schema",
    "verify",
    "write_bytes",
]
