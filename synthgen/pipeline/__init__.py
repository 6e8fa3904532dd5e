"""The story: plan, generate, cancel, refine again, publish, show. Reads like `docs/architecture.md`."""

from typing import TYPE_CHECKING

from synthgen.lazy import lazily

if TYPE_CHECKING:
    from synthgen.pipeline.abilities import read_record, require_abilities
    from synthgen.pipeline.cancel import Cancelled, cancel_run
    from synthgen.pipeline.dedup import DedupOptions
    from synthgen.pipeline.dedup_output import DedupReport
    from synthgen.pipeline.exporting import Export, export, student_allowed
    from synthgen.pipeline.filter_files import filter_foreign
    from synthgen.pipeline.filter_options import FilterOptions
    from synthgen.pipeline.gates import Gates, OnDeny, open_gates
    from synthgen.pipeline.generate import Options
    from synthgen.pipeline.ignored_schemas import require_schemas_kept
    from synthgen.pipeline.plan import Plan, PrivacyPlan, make_plan
    from synthgen.pipeline.preview import Question, first_questions
    from synthgen.pipeline.progress import Progress
    from synthgen.pipeline.recheck import Attestation, Recheck, attest, check_recipe, check_rows
    from synthgen.pipeline.refilter import recut
    from synthgen.pipeline.report import Report
    from synthgen.pipeline.reporting import DatasetReport, ReportOptions, report_on
    from synthgen.pipeline.runfolder import RunFolder
    from synthgen.pipeline.show import RowStory, RunSummary, row_story, summarise
    from synthgen.pipeline.show_unusable import UnusableReplies, find_unusable

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
    "PrivacyPlan",
    "Progress",
    "Question",
    "Recheck",
    "Report",
    "ReportOptions",
    "RowStory",
    "RunFolder",
    "RunSummary",
    "UnusableReplies",
    "attest",
    "cancel_run",
    "check_recipe",
    "check_rows",
    "export",
    "filter_foreign",
    "find_unusable",
    "first_questions",
    "make_plan",
    "open_gates",
    "read_record",
    "recut",
    "report_on",
    "require_abilities",
    "require_schemas_kept",
    "row_story",
    "student_allowed",
    "summarise",
]

__getattr__ = lazily(
    __name__,
    {
        "abilities": (
            "read_record",
            "require_abilities",
        ),
        "cancel": (
            "Cancelled",
            "cancel_run",
        ),
        "dedup": ("DedupOptions",),
        "dedup_output": ("DedupReport",),
        "exporting": (
            "Export",
            "export",
            "student_allowed",
        ),
        "gates": (
            "Gates",
            "OnDeny",
            "open_gates",
        ),
        "generate": ("Options",),
        "ignored_schemas": ("require_schemas_kept",),
        "plan": (
            "Plan",
            "PrivacyPlan",
            "make_plan",
        ),
        "preview": (
            "Question",
            "first_questions",
        ),
        "progress": ("Progress",),
        "recheck": (
            "Attestation",
            "Recheck",
            "attest",
            "check_recipe",
            "check_rows",
        ),
        "filter_files": ("filter_foreign",),
        "filter_options": ("FilterOptions",),
        "refilter": ("recut",),
        "report": ("Report",),
        "reporting": (
            "DatasetReport",
            "ReportOptions",
            "report_on",
        ),
        "runfolder": ("RunFolder",),
        "show": (
            "RowStory",
            "RunSummary",
            "row_story",
            "summarise",
        ),
        "show_unusable": (
            "UnusableReplies",
            "find_unusable",
        ),
    },
)
