"""The journal: every paid answer durable before anyone reads it, never bought twice."""

from synthgen.journal.batches import (
    Captured,
    OpenBatch,
    lost_entry,
    over_entry,
    prepared_entry,
    submitted_entry,
)
from synthgen.journal.index import JournalIndex
from synthgen.journal.ledger import Ledger, Tally
from synthgen.journal.lines import Entry
from synthgen.journal.replies import (
    Circumstances,
    Reply,
    answer_entry,
    entry_of,
    failure_entry,
    read_logprobs,
    read_reply,
    without_logprobs,
)
from synthgen.journal.system import network_file_system
from synthgen.journal.tail import latest_entries
from synthgen.journal.writer import Journal, is_locked, lock_run, require_folder

__all__ = [
    "Captured",
    "Circumstances",
    "Entry",
    "Journal",
    "JournalIndex",
    "Ledger",
    "OpenBatch",
    "Reply",
    "Tally",
    "answer_entry",
    "entry_of",
    "failure_entry",
    "is_locked",
    "latest_entries",
    "lock_run",
    "lost_entry",
    "network_file_system",
    "over_entry",
    "prepared_entry",
    "read_logprobs",
    "read_reply",
    "require_folder",
    "submitted_entry",
    "without_logprobs",
]
