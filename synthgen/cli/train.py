"""`synthgen train`: a dataset in, a student out; and what goes before and after it (`plan`, `doctor`,
`config`, `score`, `prune`, `export`, `evaluate`).

`synthgen train DATASET ...` is short for `synthgen train run DATASET ...`: a dataset called like a verb is written `./score`.
torch and its libraries are loaded inside the verbs alone.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from synthgen.cli.terminal import safe
from synthgen.cli.train_after import evaluate, export, prune
from synthgen.cli.train_given import AsJson, Config, Dataset, Overrides, print_refused, require_libraries, say
from synthgen.cli.train_score import score
from synthgen.errors import CriteriaNotMet, UsageError

if TYPE_CHECKING:  # the libraries of training take seconds to load
    from synthgen.train.doctor.checks import Result
    from synthgen.train.metrics import Progress
    from synthgen.train.tasks.dispatch import Report

__all__ = ["app"]

_SAID_EVERY_S = 10.0


class _RunByDefault(TyperGroup):
    """What does not begin with a verb is for `run`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]  # base is private
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunByDefault,
    help="Train a student: synthgen train DATASET -c student.yaml.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def train() -> None:
    """Train a student: synthgen train DATASET -c student.yaml."""


@app.command()
def run(
    dataset: Dataset,
    config: Config = None,
    base: Annotated[str | None, typer.Option(help="The base: a hub id, a folder, or smollm2-135m.")] = None,
    method: Annotated[str | None, typer.Option(help="full, lora or qlora.")] = None,
    lora: Annotated[bool, typer.Option("--lora", help="Short for --method lora.")] = False,
    epochs: Annotated[float | None, typer.Option(help="How often each row is seen.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Optimiser steps, whatever the epochs.")] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of the student. Default: students/<name>.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train what the file describes: a student that writes, a classifier, an embedding model, a chain of stages.

    The same command goes on where it was stopped, and does nothing once the student is there.
    """
    flags = {
        "base": base,
        "method": "lora" if lora else method,
        "steps.epochs": epochs,
        "steps.max_steps": max_steps,
    }
    if lora and method not in (None, "lora"):
        raise UsageError(f"--lora and --method {method} contradict each other")
    given = [f"{key}={value}" for key, value in flags.items() if value is not None]
    if config is None and base is None:
        raise UsageError("train: name a student's file with -c, or a base with --base")
    require_libraries()
    from synthgen.cli.as_json import print_json
    from synthgen.train.tasks.dispatch import train_file

    source = config if config is not None else {"name": "student", "base": str(base)}
    with redirect_stdout(sys.stderr):  # trackers print
        report = train_file(
            source,
            dataset,
            out,
            overrides=[*(overrides or ()), *given],
            progress=None if as_json else _progress(),
            say=say,
        )
    if os.environ.get("RANK", "0") != "0":
        return  # of several processes one speaks
    if as_json:
        print_json(asdict(report))
    else:
        _print_report(report)


@app.command()
def plan(
    dataset: Dataset,
    config: Config = None,
    base: Annotated[str | None, typer.Option(help="The base: a hub id, a folder, or smollm2-135m.")] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """What the training would need: memory, work, time on common cards. Estimated, not measured; loads no weights."""
    if config is None and base is None:
        raise UsageError("train plan: name a student's file with -c, or a base with --base")
    require_libraries()
    from synthgen.cli.as_json import print_json
    from synthgen.train.config import load_student
    from synthgen.train.plan import plan_student

    source = config if config is not None else {"name": "student", "base": str(base)}
    given = [f"base={base}"] if config is not None and base is not None else []
    found = plan_student(load_student(source, [*(overrides or ()), *given]), dataset)
    if as_json:
        print_json({"estimated": True, **asdict(found), "total_bytes": found.total_bytes})
        return
    print("estimated, not measured")
    print(f"parameters: {found.sizes.parameters:,}, of which trained {found.sizes.trained:,}")
    print(f"sequences: {found.examples:,} ({found.tokens_per_epoch:,} tokens), steps: {found.steps:,}")
    for name, size in (
        ("weights", found.weights_bytes),
        ("gradients", found.gradients_bytes),
        ("optimiser", found.optimizer_bytes),
        (f"activations of {found.micro_batch} x {found.longest} tokens", found.activations_bytes),
        ("together", found.total_bytes),
    ):
        print(f"{name}: {size / 1e9:,.2f} GB")
    for fit in found.cards:
        enough = (
            "fits" if fit.fits else f"needs {fit.cards_if_sharded or 'smaller batches, not more'} of them"
        )
        print(f"{fit.card}: {enough}; {_span(3600 * fit.hours)} on one")


for verb in (score, export, prune, evaluate):
    app.command()(verb)


@app.command("config")
def settings(
    name: Annotated[str, typer.Argument(help="fsdp2, ddp, zero2 or zero3.", show_default=False)],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="A file for it, instead of stdout.")] = None,
) -> None:
    """Settings for `accelerate launch` (fsdp2, ddp), or for DeepSpeed (zero2, zero3)."""
    from synthgen.dataset import write_bytes
    from synthgen.train.launch import launch_text
    from synthgen.train.out_file import check_out_file

    text = launch_text(name)
    if out is None:
        print(text, end="")
    elif out.exists():
        raise UsageError(f"train config: {out} exists; name another file")
    else:
        check_out_file(out)
        write_bytes(out, text.encode())


@app.command()
def doctor(
    device: Annotated[str | None, typer.Option(help="cuda or cpu. Default: cuda where there is one.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="A file for the report, as JSON.")] = None,
    as_json: AsJson = False,
) -> None:
    """Prove the trainer on this machine: losses, packing, precision, resuming, learning. Downloads nothing."""
    require_libraries()
    import orjson

    from synthgen.cli.as_json import print_json
    from synthgen.dataset import write_bytes
    from synthgen.train.doctor.story import run_doctor
    from synthgen.train.out_file import check_out_file

    if out is not None:
        check_out_file(out)

    report = run_doctor(device, told=None if as_json else _print_result)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(out, orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2))
    if as_json:
        print_json(report.as_json())
    else:
        found = report.device
        bf16 = "bf16" if found.bf16 else "no bf16"
        size = (
            f"{found.count} x {found.memory_bytes / 1e9:,.1f} GB"
            if found.type == "cuda"
            else f"{found.memory_bytes / 1e9:,.1f} GB"
        )
        print(f"{found.type}: {found.name}, {size}, {bf16}; {report.seconds:,.0f} s")
        not_run = [check.name for check in report.checks if check.status == "skip"]
        if not_run:
            print(f"not run: {', '.join(not_run)}; nothing is known of them")
        if found.type == "cpu":
            print("this was a CPU: what a GPU does is not known from it")
    failed = [check.name for check in report.checks if check.status == "fail"]
    if failed:
        raise CriteriaNotMet(f"train doctor: failed on this machine: {', '.join(failed)}")


def _span(seconds: float) -> str:
    """In the unit in which it is a number one can think of."""
    if seconds < 60:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def _print_result(result: "Result") -> None:
    value = "" if result.measured is None else f" {result.measured:.3g} (at most {result.bound:.3g})"
    details = "".join(f", {name} {number:,.4g}" for name, number in result.details.items())
    reason = f": {safe(result.reason)}" if result.reason else ""
    print(f"{result.status} {result.name}{value}{details}{reason}", flush=True)


def _progress() -> Callable[["Progress"], None]:
    """A line on stderr at the first step, at the last, and every 10 s between."""
    last = -_SAID_EVERY_S

    def tell(now: "Progress") -> None:
        nonlocal last
        if now.step not in (1, now.steps) and time.monotonic() - last < _SAID_EVERY_S:
            return
        last = time.monotonic()
        loss = "-" if now.loss is None else f"{now.loss:.4f}"
        validation = "" if now.validation_loss is None else f", validation {now.validation_loss:.4f}"
        speed = f"{now.tokens_per_s:,.0f} tokens/s, " if now.tokens_per_s else ""
        print(
            f"step {now.step}/{now.steps}, loss {loss}{validation}, {speed}{now.remaining_s:,.0f} s left",
            file=sys.stderr,
        )

    return tell


def _print_report(report: "Report") -> None:
    from synthgen.train.tasks.chain import ChainReport
    from synthgen.train.tasks.folder import TaskReport

    if isinstance(report, ChainReport):
        for stage in report.stages:
            _print_report(stage)
        return
    if not report.trained:
        print(f"student: {report.out} (was there already)")
        return
    if isinstance(report, TaskReport):
        held_out = f", {report.validation_rows:,} to validate on" if report.validation_rows else ""
        print(f"trained on {report.rows:,} rows{held_out}")
        numbers: Mapping[str, float | None] = report.numbers
    else:
        print(
            f"trained on {report.examples:,} examples, {report.targets:,} of {report.tokens:,} tokens: "
            f"{report.steps:,} steps in {report.seconds:,.0f} s"
        )
        numbers = {"loss": report.loss, "validation loss": report.validation_loss}
    for name, value in numbers.items():
        if value is not None:
            print(f"{name.replace('_', ' ')}: {value:.4f}")
    print_refused(report.refused)
    for duty in report.obligations:
        print(f"duty: {safe(duty)}")
    print(f"student: {report.out}")
