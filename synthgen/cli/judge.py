"""`synthgen judge calibrate`: can the judge of a run be trusted?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthgen.cli.terminal import safe

if TYPE_CHECKING:  # numpy is not loaded for --help
    from synthgen.pipeline.calibration import Calibration
    from synthgen.refine.agreement import Cut
    from synthgen.refine.shares import Estimate

__all__ = ["app"]

app = typer.Typer(help="Compare judges with people.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def judge() -> None:
    """Compare judges with people."""


@app.command()
def calibrate(
    run: Annotated[Path, typer.Argument(help="A run folder with judgements.", show_default=False)],
    labels: Annotated[
        Path, typer.Option(help="JSONL: id (or instruction and response), and label.", show_default=False)
    ],
    precision: Annotated[
        float, typer.Option(help="Share of kept records that must be good; picks the threshold.")
    ] = 0.9,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Compare stored judgements with people's labels; asks nobody, and stores calibration.json in the run."""
    from synthgen import api
    from synthgen.cli.as_json import print_json

    found = api.judge_calibrate(run, labels, precision=precision)
    if as_json:
        print_json(found.as_json())
    else:
        _print(found)


def _print(found: "Calibration") -> None:
    from rich.table import Table
    from rich.text import Text

    from synthgen.cli.output import console

    out = console()
    kind = "yes or no" if found.binary else "scores"
    out.print(
        f"{found.labels} labels ({kind}), {found.matched} of judged records, {found.scored} with a score; {found.good} good"
    )
    numbers = Table("agreement", "value", "95 % interval", "n", box=None, pad_edge=False)
    for name, one in (
        ("kappa, at the recipe's rule", found.kappa),
        ("weighted kappa of the scores", found.weighted_kappa),
        ("AUC", found.auc),
        ("rank correlation", found.spearman),
        ("length and score, at equal labels", found.verbosity),
        ("same answer in both orders", found.position.consistent if found.position else None),
    ):
        if one is not None or name in ("AUC", "kappa, at the recipe's rule"):
            numbers.add_row(name, *_cells(one))
    out.print(numbers)
    table = Table(
        "rule",
        "kept good",
        "kept bad",
        "dropped good",
        "dropped bad",
        "precision",
        "recall",
        box=None,
        pad_edge=False,
    )
    now = ", ".join(rule if name == "overall" else f"{name} {rule}" for name, rule in found.rules.items())
    for name, cut in (
        (f"now: {now}", found.now),
        (f"precision {found.precision:g}: {found.picked_rule}", found.picked),
    ):
        if cut is not None:
            counts = (cut.kept_good, cut.kept_bad, cut.dropped_good, cut.dropped_bad)
            table.add_row(Text(safe(name)), *map(str, counts), *_shares(cut))
    out.print(table)
    judges = Table(
        "judge", "replies", "unreadable", "expected", "mean", "deviation", "AUC", box=None, pad_edge=False
    )
    for row in found.judges:
        shown = ("-" if one is None else f"{one:.2f}" for one in (row.mean, row.spread))
        area = "-" if row.auc is None else f"{row.auc.value:.3f}"
        judges.add_row(
            Text(safe(row.judge)), str(row.judgements), str(row.unparsable), str(row.expected), *shown, area
        )
    out.print(judges)
    for name, strength in found.strengths.items():
        out.print(Text(f"teacher {safe(name)}: strength {strength:.2f} (Bradley-Terry, 1 is average)"))
    for warning in found.warnings:
        out.print(Text(f"warning: {safe(warning)}"))
    out.print(f"calibration {found.id}; the next generate stores it with the scores")


def _cells(one: "Estimate | None") -> tuple[str, str, str]:
    if one is None:
        return "none: one side never changes", "", ""
    return f"{one.value:.3f}", f"{one.low:.3f} to {one.high:.3f}", str(one.n)


def _shares(cut: "Cut") -> list[str]:
    return [
        "-" if one is None else f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"
        for one in (cut.precision, cut.recall)
    ]
