"""Results for people and programs.

In: reports, plans, summaries, stories. Out: stdout, as tables or as JSON. Model text is untrusted: control characters
are shown escaped, and no markup in it is interpreted.
"""

from collections.abc import Mapping
from typing import cast

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from synthgen.cli.terminal import safe
from synthgen.pipeline import Plan, Report, RowStory, RunSummary
from synthgen.types import JSONValue

__all__ = ["print_json", "print_plan", "print_report", "print_shown"]

OUTCOMES = ("planned", "accepted", "rejected", "failed", "quarantined", "surplus", "pending")
_SAMPLE_CHARS = 600


def print_json(value: JSONValue) -> None:
    """JSON on stdout, indented."""
    print(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS, default=str).decode())


def _console() -> Console:
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True)


def print_report(report: Report, *, as_json: bool, published: bool = True) -> None:
    """The end of `generate` and `filter`."""
    if as_json:
        print_json(report.as_json())
        return
    console = _console()
    _print_funnel(console, report.counts, report.reasons)
    _print_usage(console, report.usage)
    console.print(f"sent {report.sent} requests in {report.elapsed_s:.1f} s")
    if published and report.problem is None:
        console.print(f"dataset: {report.out}")


def _print_funnel(console: Console, counts: Mapping[str, int], reasons: Mapping[str, int]) -> None:
    funnel = Table(title="funnel", title_justify="left", box=None, show_header=False, pad_edge=False)
    for name in OUTCOMES:
        if counts.get(name) or name in ("planned", "accepted", "rejected"):
            funnel.add_row(name, str(counts.get(name, 0)))
        if name == "rejected":
            for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
                funnel.add_row(Text(f"  {reason}"), str(count))
    console.print(funnel)


def _print_usage(console: Console, usage: JSONValue) -> None:
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
        console.print(table)
    lost = cast(dict[str, JSONValue], usage["lost"])
    if lost["requests"]:
        console.print(
            f"{lost['requests']} sends never brought a reply and may have been paid "
            f"(up to {lost['reserved_usd']:.6f} USD, counted against the cap)"
        )


def print_plan(plan: Plan, *, as_json: bool) -> None:
    """What `plan` found."""
    if as_json:
        print_json(plan.as_json())
        return
    console = _console()
    bad = f" ({plan.bad_rows} malformed)" if plan.bad_rows else ""
    console.print(
        f"{plan.rows} rows{bad}, {plan.bound} {plan.requests} requests, about {plan.disk_bytes / 1e6:.1f} MB of disk"
    )
    table = Table(
        "step", "teacher", "requests", "input tokens", "output tokens", "USD", box=None, pad_edge=False
    )
    for line in plan.lines:
        cost = (
            "unknown" if line.usd is None else f"{line.usd:.4f} ({line.usd_low:.4f} to {line.usd_high:.4f})"
        )
        table.add_row(
            Text(line.step),
            Text(line.teacher),
            str(line.requests),
            str(line.input_tokens),
            str(line.output_tokens),
            cost,
        )
    console.print(table)
    usd = plan.usd()
    console.print(
        "cost: unknown"
        if usd is None
        else f"cost: {usd[1]:.4f} USD ({usd[0]:.4f} to {usd[2]:.4f}), estimated"
    )
    if plan.budget_usd is not None:
        console.print(f"cap: {plan.budget_usd:g} USD")
    _print_policy(console, plan.policy)


def _print_policy(console: Console, policy: JSONValue) -> None:
    decided = cast(dict[str, JSONValue], policy)
    for part in cast(list[dict[str, JSONValue]], decided["parts"]):
        console.print(Text(f"{part['teacher']} ({part['role']}) on {part['route']}: {part['decision']}"))
        for rule in cast(list[dict[str, JSONValue]], part["rules"]):
            source = cast(dict[str, JSONValue], rule["source"])
            console.print(
                Text(
                    f"  {rule['decision']} by {rule['rule']} [{source['doc']} {source['section']}, "
                    f"{source['effective']}; as of {rule['as_of']} {rule['evidence']}]"
                )
            )
    obligations = ", ".join(str(item) for item in cast(list[JSONValue], decided["obligations"]))
    console.print(f"policy: {decided['decision']}" + (f"; owed: {obligations}" if obligations else ""))


def print_shown(shown: RunSummary | RowStory, *, as_json: bool) -> None:
    """What `show` found."""
    if as_json:
        print_json(shown.as_json())
    elif isinstance(shown, RunSummary):
        _print_summary(_console(), shown)
    else:
        _print_story(_console(), shown)


def _print_summary(console: Console, summary: RunSummary) -> None:
    if not summary.published:
        console.print(f"{summary.run}: not published yet; run the same generate command to its end")
    if summary.counts:
        _print_funnel(console, summary.counts, summary.reasons)
    _print_usage(console, summary.usage)
    for number, record in enumerate(summary.samples, start=1):
        console.print(f"\nsample {number}  {record['id']}")
        _print_messages(console, record)
    for record in summary.rejects:
        score = "" if record.get("score") is None else f", score {record['score']}"
        console.print(f"\nrejected  {record['id']}\nreason: {record['stage']}/{record['reason']}{score}")
        if record.get("detail"):
            console.print(Text(safe(str(record["detail"]), _SAMPLE_CHARS)))
        _print_messages(console, record)


def _print_messages(console: Console, record: Mapping[str, JSONValue]) -> None:
    for message in cast(list[dict[str, JSONValue]], record["messages"]):
        console.print(Text(f"{message['role']}: {safe(str(message['content']), _SAMPLE_CHARS)}"))


def _print_story(console: Console, story: RowStory) -> None:
    console.print(f"{story.id}: {story.outcome}")
    console.print(Text(f"source: {story.source}"))
    for step in story.steps:
        console.print(Text(f"\nstep {step.step}, teacher {step.teacher}, request {step.request_key}"))
        for message in step.messages:
            console.print(Text(f"  {message.role}: {safe(message.content, _SAMPLE_CHARS)}"))
        reply = step.reply
        if reply is None:
            console.print("  not answered")
        elif reply.completion is None:
            console.print(Text(f"  failed: {reply.reason}: {safe(reply.message or '')}"))
        else:
            console.print(Text(f"  reply: {safe(reply.completion.text, _SAMPLE_CHARS)}"))
            usage = reply.completion.usage
            tokens = f"{usage.input_tokens} + {usage.output_tokens} tokens" if usage else "no usage reported"
            cost = "cost unknown" if reply.cost_usd is None else f"{reply.cost_usd:.6f} USD"
            console.print(
                f"  {reply.completion.finish_reason}, {tokens}, {cost}, {reply.at.attempts} attempts, "
                f"{reply.at.latency_s:.2f} s"
            )
    console.print("")
    for line in story.verdicts:
        console.print(Text(safe(line)))
    console.print("cost: unknown" if story.cost_usd is None else f"cost: {story.cost_usd:.6f} USD")
