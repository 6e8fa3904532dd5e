"""Results for people and programs.

In: reports, plans, summaries, stories. Out: stdout, as tables or as JSON. Model text is untrusted: control characters
are shown escaped, and no markup in it is interpreted.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from synthgen.cli.as_json import print_json
from synthgen.cli.terminal import safe
from synthgen.pipeline import (
    Cancelled,
    Plan,
    PrivacyPlan,
    Question,
    Report,
    RowStory,
    RunSummary,
    UnusableReplies,
)
from synthgen.pipeline.usage import possibly_paid_said
from synthgen.recipe.model import SelectConfig
from synthgen.types import JSONValue

__all__ = ["console", "print_cancelled", "print_plan", "print_report", "print_shown", "print_unusable"]

OUTCOMES = ("planned", "accepted", "rejected", "failed", "quarantined", "surplus", "pending")
_SAMPLE_CHARS = 600
# A pipe has no width: tables must not break lines that a program or a log will read.
_PIPE_COLUMNS = 10_000


def console() -> Console:
    """Stdout, as wide as the terminal, or as wide as it takes where there is none."""
    width = None if sys.stdout.isatty() else _PIPE_COLUMNS
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=width)


def print_report(report: Report, *, as_json: bool, published: bool = True) -> None:
    """The end of `generate` and `filter`."""
    if as_json:
        print_json(report.as_json())
        return
    out = console()
    _print_funnel(out, report.counts, report.reasons, report.examples, report.flags, report.checked)
    _print_ahead(out, report.rows_ahead)
    _print_usage(out, report.usage, report.out)
    out.print(f"sent {report.sent} requests in {report.elapsed_s:.1f} s")
    if not report.refined:
        out.print("asked only: no filter has looked at what counts as accepted")
    if published and report.problem is None:
        out.print(f"dataset: {report.out}")


def _print_funnel(
    out: Console,
    counts: Mapping[str, int],
    reasons: Mapping[str, int],
    examples: Mapping[str, str],
    flags: Mapping[str, int],
    checked: Mapping[str, int] | None = None,
) -> None:
    funnel = Table(title="funnel", title_justify="left", box=None, show_header=False, pad_edge=False)
    for name in OUTCOMES:
        if counts.get(name) or name in ("planned", "accepted", "rejected"):
            funnel.add_row(name, str(counts.get(name, 0)))
        if name == "rejected":
            for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
                funnel.add_row(Text(f"  {reason}"), str(count))
    for flag, count in flags.items():
        funnel.add_row(Text(f"flagged {safe(flag)}"), str(count))
    for step, count in (checked or {}).items():
        funnel.add_row(Text(f"checked by {safe(step)}"), str(count))
    out.print(funnel)
    for reason, example in examples.items():
        out.print(Text(f"{reason}, for example {safe(example, _SAMPLE_CHARS)}"))


def _print_ahead(out: Console, rows: int) -> None:
    if rows:
        out.print(
            f"{rows} further rows were asked ahead of their turn, past those that wait for a teacher; their replies are stored"
        )


def _print_usage(out: Console, usage: JSONValue, run: Path) -> None:
    if not isinstance(usage, dict):
        return
    table = Table("step", "teacher", "replies", "failed", "input", "output", "USD", box=None, pad_edge=False)
    for row in cast(list[dict[str, JSONValue]], usage["by_step_and_teacher"]):
        cost = row["cost_usd"]
        table.add_row(
            Text(str(row["step"])),
            Text(str(row["teacher"])),
            *(str(row[name]) for name in ("requests", "failed", "input_tokens", "output_tokens")),
            "unknown" if cost is None else f"{cost:.6f}",
        )
    if table.row_count:
        out.print(table)
    lost = cast(dict[str, JSONValue], usage["lost"])
    if lost["requests"]:
        out.print(possibly_paid_said(cast(int, lost["requests"]), cast(float, lost["reserved_usd"]), run))
    unusable = cast(dict[str, JSONValue], usage["unusable"])
    if unusable["replies"]:
        out.print(
            f"{unusable['replies']} replies were paid and unusable "
            f"(up to {unusable['reserved_usd']:.6f} USD, counted against the cap); "
            f"`synthgen show {run} --unusable` prints them"
        )


def print_cancelled(cancelled: Cancelled, *, as_json: bool) -> None:
    """The end of `cancel`."""
    if as_json:
        print_json(cancelled.as_json())
        return
    out = console()
    if not cancelled.batches:
        out.print(f"{cancelled.run}: no batch is under way")
        return
    table = Table("batch", "teacher", "answered", "failed", "pending", "USD", box=None, pad_edge=False)
    for batch in cancelled.batches:
        counts = (str(number) for number in (batch.answered, batch.failed, batch.pending))
        table.add_row(Text(batch.id or "never created"), Text(batch.teacher), *counts, f"{batch.usd:.6f}")
    out.print(table)
    out.print("the replies collected are stored; the next generate uses them")


def print_plan(plan: Plan, questions: Sequence[Question] = (), *, as_json: bool) -> None:
    """What `plan` found, and the prompts it was asked to show."""
    if as_json:
        shown: dict[str, JSONValue] = {"questions": [question.as_json() for question in questions]}
        print_json({**plan.as_json(), **(shown if questions else {})})
        return
    out = console()
    bad = f" ({plan.bad_rows} malformed)" if plan.bad_rows else ""
    out.print(
        f"{plan.rows} rows{bad}, {plan.bound} {plan.requests} requests, about {plan.disk_bytes / 1e6:.1f} MB of disk"
    )
    table = Table(
        "step", "teacher", "requests", "input tokens", "output tokens", "USD", box=None, pad_edge=False
    )
    for line in plan.lines:
        table.add_row(
            Text(line.step),
            Text(line.teacher),
            str(line.requests),
            str(line.input_tokens),
            str(line.output_tokens),
            Text(_usd(line.usd_low, line.usd, line.usd_high), no_wrap=True),
        )
    out.print(table)
    for mode in plan.modes:
        price = "in batches, at half price" if mode.mode == "batch" else "live"
        out.print(Text(f"teacher {mode.teacher} {price}: {mode.why}"))
    for said in plan.timeouts:
        out.print(Text(said))
    low, expected, high = plan.usd() or (None, None, None)
    out.print(f"cost: {_usd(low, expected, high)}" + (" USD, estimated" if expected is not None else ""))
    if plan.select is not None:
        out.print(Text(_selection(plan.select, plan.target)))
    if plan.budget_usd is not None:
        out.print(f"cap: {plan.budget_usd:g} USD")
    if plan.privacy and (plan.privacy.found or plan.privacy.mode != "allow"):
        _print_privacy(out, plan.privacy)
    _print_policy(out, plan.policy)
    for question in questions:
        _print_question(out, question)


def _selection(select: SelectConfig, target: int | None) -> str:
    before = "all accepted records" if target is None else f"the {target} accepted records of `target`"
    kept = f"select: {select.n} of {before} are published, by {select.by}"
    return f"{kept} (which leaves out none)" if target is not None and select.n >= target else kept


def _print_privacy(out: Console, privacy: PrivacyPlan) -> None:
    done = {"allow": "is sent as it is", "redact": "is replaced", "block": "is not sent"}[privacy.mode]
    found = ", ".join(f"{reason} in {count}" for reason, count in privacy.found.items()) or "nothing"
    out.print(
        f"privacy: {privacy.mode}: private data {done} (hosted: {', '.join(privacy.hosted)}); "
        f"in the first {privacy.looked_at} prompts: {found}"
    )


def _print_question(out: Console, question: Question) -> None:
    asked = f"row {question.row}, step {question.step}, sample {question.sample}"
    if question.problem is not None:
        out.print(Text(f"\n{asked}: rejected, {safe(question.problem, _SAMPLE_CHARS)}"))
        return
    out.print(Text(f"\n{asked}, to teacher {question.teacher}:"))
    for message in question.messages:
        out.print(Text(_indented(f"{message.role}: {safe(message.content)}")))


def _usd(low: float | None, expected: float | None, high: float | None) -> str:
    return "unknown" if expected is None else f"{expected:.4f} ({low:.4f} to {high:.4f})"


def _print_policy(out: Console, policy: JSONValue) -> None:
    decided = cast(dict[str, JSONValue], policy)
    for part in cast(list[dict[str, JSONValue]], decided["parts"]):
        out.print(Text(f"{part['teacher']} ({part['role']}) on {part['route']}: {part['decision']}"))
        for rule in cast(list[dict[str, JSONValue]], part["rules"]):
            source = cast(dict[str, JSONValue], rule["source"])
            out.print(
                Text(
                    f"  {rule['decision']} by {rule['rule']} [{source['doc']} {source['section']}, "
                    f"{source['effective']}; as of {rule['as_of']} {rule['evidence']}]"
                )
            )
    obligations = ", ".join(str(item) for item in cast(list[JSONValue], decided["obligations"]))
    out.print(f"policy: {decided['decision']}" + (f"; owed: {obligations}" if obligations else ""))


def print_shown(shown: RunSummary | RowStory, *, as_json: bool) -> None:
    """What `show` found."""
    if as_json:
        print_json(shown.as_json())
    elif isinstance(shown, RunSummary):
        _print_summary(console(), shown)
    else:
        _print_story(console(), shown)


def print_unusable(found: UnusableReplies, *, as_json: bool) -> None:
    """What `show --unusable` found."""
    if as_json:
        print_json(found.as_json())
        return
    out = console()
    for reply in found.replies:
        whose = (
            f"{reply.key}  step {reply.step}, teacher {reply.teacher}: {reply.reason}, {reply.usd:.6f} USD"
        )
        out.print(Text(safe(whose)))
        out.print(Text(_indented(f"  {safe(reply.body, _SAMPLE_CHARS)}")))
    out.print(f"{len(found.replies)} replies were paid and unusable, up to {found.usd:.6f} USD")


def _print_summary(out: Console, summary: RunSummary) -> None:
    if not summary.published:
        out.print(f"{summary.run}: not published yet; run the same generate command to its end")
    if summary.counts:
        _print_funnel(out, summary.counts, summary.reasons, summary.examples, summary.flags)
    _print_ahead(out, summary.rows_ahead)
    if set(summary.generations) - {"1"}:
        told = ", ".join(f"{count:,} of generation {number}" for number, count in summary.generations.items())
        out.print(f"rows: {told}; each round of distillation loses some of what the first teacher knew")
    _print_usage(out, summary.usage, summary.run)
    if summary.running:
        out.print("a process works on this run now; sends without a reply may be on the wire")
    if summary.judge:
        out.print(Text(f"judge: {safe(summary.judge)}"))
    for said in summary.batches:
        out.print(Text(said))
    if summary.counts.get("pending"):
        out.print("the next generate goes on with what is pending; it uses the replies collected so far")
    for number, record in enumerate(summary.samples, start=1):
        out.print(Text(f"\nsample {number}  {safe(str(record.get('id', '')))}"))
        _print_record(out, record)
    for record in summary.rejects:
        out.print(Text(f"\nrejected  {safe(str(record.get('id', '')))}"))
        if "dup_reason" in record:
            jaccard = (
                ""
                if record["dup_of"] is None
                else f", Jaccard {record['dup_jaccard']:.4g} to {record['dup_of']}"
            )
            out.print(Text(safe(f"reason: {record['dup_reason']}{jaccard}")))
            if record["dup_detail"] is not None:
                out.print(Text(safe(str(record["dup_detail"]), _SAMPLE_CHARS)))
        else:
            score = "" if record.get("score") is None else f", score {record['score']}"
            out.print(
                Text(f"reason: {record['stage']}/{record['reason']}{score}\nsource: {record['source']}")
            )
            if record.get("detail"):
                out.print(Text(safe(str(record["detail"]), _SAMPLE_CHARS)))
        _print_record(out, record)


def _print_record(out: Console, record: Mapping[str, JSONValue]) -> None:
    """Its turns; of rows of any columns, what stands in them."""
    if not isinstance(record.get("messages"), list):
        for name, value in record.items():
            if value is not None and name != "id" and not name.startswith("dup_"):
                out.print(Text(f"{safe(name)}: {safe(str(value), _SAMPLE_CHARS)}"))
        return
    for message in cast(list[dict[str, JSONValue]], record["messages"]):
        out.print(Text(f"{message['role']}: {safe(str(message['content']), _SAMPLE_CHARS)}"))
        for call in cast(list[dict[str, str]], message.get("tool_calls") or ()):
            out.print(Text(f"  calls {safe(call['name'])}({safe(call['arguments'], _SAMPLE_CHARS)})"))


def _print_story(out: Console, story: RowStory) -> None:
    out.print(f"{story.id}: {story.outcome}")
    out.print(Text(f"source: {story.source}"))
    for step in story.steps:
        out.print(Text(f"\nstep {step.step}, teacher {step.teacher}, request {step.request_key}"))
        for message in step.messages:
            out.print(Text(_indented(f"{message.role}: {safe(message.content, _SAMPLE_CHARS)}")))
        reply = step.reply
        if reply is None:
            out.print("  not answered")
        elif reply.completion is None:
            out.print(Text(f"  failed: {reply.reason}: {safe(reply.message or '')}"))
        else:
            out.print(Text(_indented(f"reply: {safe(reply.completion.text, _SAMPLE_CHARS)}")))
            usage = reply.completion.usage
            tokens = f"{usage.input_tokens} + {usage.output_tokens} tokens" if usage else "no usage reported"
            cost = "cost unknown" if reply.cost_usd is None else f"{reply.cost_usd:.6f} USD"
            out.print(
                f"  {reply.completion.finish_reason}, {tokens}, {cost}, attempt {reply.at.attempts}, "
                f"{reply.at.latency_s:.2f} s"
            )
    if not story.steps and story.record:
        _print_record(out, story.record)
    out.print("")
    for line in story.verdicts:
        out.print(Text(safe(line, _SAMPLE_CHARS)))
    if story.steps:
        out.print("cost: unknown" if story.cost_usd is None else f"cost: {story.cost_usd:.6f} USD")


def _indented(text: str) -> str:
    """A turn of a step: its later lines stand below its first, so that they are not taken for ours."""
    return indent(text, "    ")[2:]
