"""The story: plan, generate, cancel, refine again, publish, show. Reads like `docs/architecture.md`."""

from synthgen.pipeline.abilities import read_record, require_abilities
from synthgen.pipeline.cancel import Cancelled, cancel_run
from synthgen.pipeline.dedup import DedupOptions, dedup
from synthgen.pipeline.dedup_output import DedupReport
from synthgen.pipeline.exporting import Export, export, student_allowed
from synthgen.pipeline.gates import Gates, OnDeny, open_gates
from synthgen.pipeline.generate import Options, generate
from synthgen.pipeline.plan import Plan, make_plan
from synthgen.pipeline.preview import Question, first_questions
from synthgen.pipeline.progress import Progress
from synthgen.pipeline.recheck import Attestation, Recheck, attest, check_recipe, check_rows
from synthgen.pipeline.refilter import FilterOptions, filter_foreign, recut
from synthgen.pipeline.report import Report
from synthgen.pipeline.reporting import DatasetReport, ReportOptions, report_on
from synthgen.pipeline.resolve import resolve
from synthgen.pipeline.runfolder import RunFolder
from synthgen.pipeline.show import RowStory, RunSummary, row_story, summarise

__all__ = [
    "Attestation",
    "Cancelled",
    "DatasetReport",
    "DedupOptions",
    "DedupReport",
    "Export",
    "FilterOptions",
    "Gates",
    "OnDeny",
    "Options",
    "Plan",
    "Progress",
    "Question",
    "Recheck",
    "Report",
    "ReportOptions",
    "RowStory",
    "RunFolder",
    "RunSummary",
    "attest",
    "cancel_run",
    "check_recipe",
    "check_rows",
    "dedup",
    "export",
    "filter_foreign",
    "first_questions",
    "generate",
    "make_plan",
    "open_gates",
    "read_record",
    "recut",
    "report_on",
    "require_abilities",
    "resolve",
    "row_story",
    "student_allowed",
    "summarise",
]
