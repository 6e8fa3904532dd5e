"""The story: plan, generate, refine again, publish, show. Reads like `docs/architecture.md`."""

from synthgen.pipeline.exporting import Export, export, student_allowed
from synthgen.pipeline.gates import Gates, OnDeny, open_gates
from synthgen.pipeline.generate import Options, generate
from synthgen.pipeline.plan import Plan, make_plan
from synthgen.pipeline.progress import Progress
from synthgen.pipeline.recheck import Attestation, Recheck, attest, check_recipe, check_rows
from synthgen.pipeline.refilter import FilterOptions, filter_foreign, recut
from synthgen.pipeline.report import Report
from synthgen.pipeline.resolve import resolve
from synthgen.pipeline.show import RowStory, RunSummary, row_story, summarise

__all__ = [
    "Attestation",
    "Export",
    "FilterOptions",
    "Gates",
    "OnDeny",
    "Options",
    "Plan",
    "Progress",
    "Recheck",
    "Report",
    "RowStory",
    "RunSummary",
    "attest",
    "check_recipe",
    "check_rows",
    "export",
    "filter_foreign",
    "generate",
    "make_plan",
    "open_gates",
    "recut",
    "resolve",
    "row_story",
    "student_allowed",
    "summarise",
]
