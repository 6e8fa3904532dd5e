"""Datasets on disk: ours, written and published; anybody's, read.

whole    one file, whole or absent (write: Parquet, same rows same bytes)
staging  rows wave by wave -> final shards, train and test
publish  shards and texts become visible under one manifest
card     the README.md of a dataset
read     foreign Parquet and JSONL -> batches of records (files: paths and rows; formats: one row)
tables   foreign Parquet and JSONL -> frames with their own columns, and back (table_staging)
scratch  intermediate results of a long computation
"""

from typing import TYPE_CHECKING

from synthgen.lazy import lazily

if TYPE_CHECKING:
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
    from synthgen.dataset.files import BadRow, find_inputs
    from synthgen.dataset.publish import TEXTS, check_target, is_published, read_manifest, verify
    from synthgen.dataset.read import Batch, detect_shape, open_inputs
    from synthgen.dataset.scratch import Scratch, TextFile
    from synthgen.dataset.staging import Staging
    from synthgen.dataset.table_staging import TableStaging
    from synthgen.dataset.tables import Table, read_tables, tables_schema
    from synthgen.dataset.whole import sync_folder, write_bytes

__all__ = [
    "TEXTS",
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
    "dataset_card",
    "detect_shape",
    "find_inputs",
    "is_published",
    "open_inputs",
    "read_manifest",
    "read_tables",
    "sync_folder",
    "tables_schema",
    "verify",
    "write_bytes",
]

__getattr__ = lazily(
    __name__,
    {
        "about": (
            "CardFile",
            "CardFilters",
            "CardInfo",
            "CardPolicy",
            "CardPrompt",
            "CardTeacher",
            "CardTerms",
            "CardUse",
        ),
        "ai_act": ("ai_act_summary",),
        "card": (
            "configs_card",
            "dataset_card",
        ),
        "files": (
            "BadRow",
            "find_inputs",
        ),
        "publish": (
            "TEXTS",
            "check_target",
            "is_published",
            "read_manifest",
            "verify",
        ),
        "read": (
            "Batch",
            "detect_shape",
            "open_inputs",
        ),
        "scratch": (
            "Scratch",
            "TextFile",
        ),
        "staging": ("Staging",),
        "table_staging": ("TableStaging",),
        "tables": (
            "Table",
            "read_tables",
            "tables_schema",
        ),
        "whole": ("sync_folder", "write_bytes"),
    },
)
