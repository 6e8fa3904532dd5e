"""Verbs of `synthgen train` for a student that is there: `export`, `prune`, `evaluate`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthgen.cli.terminal import safe
from synthgen.cli.train_given import AsJson, Dataset, print_refused, require_libraries, say
from synthgen.errors import CriteriaNotMet, UsageError

if TYPE_CHECKING:  # the libraries of training take seconds to load
    from synthgen.train.evaluate import Evaluation

__all__ = ["evaluate", "export", "prune"]


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a student.", show_default=False)],
    format: Annotated[str, typer.Option("--as", help="gguf:f16, openvino:int4, ...")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The file or folder to write.")],
    prompts: Annotated[
        Path | None, typer.Option(help="A dataset whose questions both are asked, to compare their answers.")
    ] = None,
    count: Annotated[int, typer.Option(help="How many of its questions.", min=1)] = 50,
    least: Annotated[
        float, typer.Option(help="Share of equal answers below which it ends with exit code 7.", min=0, max=1)
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Write a student for another engine, and compare its answers with those of the checkpoint."""
    if least and prompts is None:
        raise UsageError("--least compares answers: name a dataset with --prompts")
    require_libraries()
    from synthgen.cli.as_json import print_json
    from synthgen.train.export.story import export_student, first_prompts

    asked = first_prompts(prompts, count) if prompts is not None else []
    report = export_student(checkpoint, out, format, prompts=asked, least=least)
    if as_json:
        print_json(asdict(report))
        return
    print(f"{report.exported}: {report.format}, {report.size_bytes / 1e6:,.1f} MB")
    if report.agreement is not None:
        print(
            f"{report.agreement.same} of {report.agreement.prompts} answers are those of {report.checkpoint}"
        )


def prune(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a student.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder to write.")],
    share: Annotated[float, typer.Option(help="Share of the linear layers' weights to set to zero.")] = 0.3,
    as_json: AsJson = False,
) -> None:
    """Set the smallest weights to zero, before an export to an engine that stores zeros well."""
    require_libraries()
    from synthgen.cli.as_json import print_json
    from synthgen.train.export.pruning import prune_checkpoint

    zeroed = prune_checkpoint(checkpoint, out, share)
    if as_json:
        print_json({"out": str(out), "zeroed": zeroed})
    else:
        print(f"{out}: {zeroed:.1%} of the linear layers' weights are zero")


def evaluate(
    student: Annotated[str, typer.Argument(help="Folder or hub id of a checkpoint.", show_default=False)],
    dataset: Dataset,
    against: Annotated[
        str | None, typer.Option(help="Another checkpoint on the same rows: the base, an earlier student.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Of a run: test, or train, which the student has seen.")
    ] = "test",
    limit: Annotated[int | None, typer.Option(help="At most so many rows.", min=1)] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Of an answer. Default: twice the longest of the teacher's.", min=1)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Answers computed at once.", min=1)] = 16,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write every row with both answers, as JSONL.")
    ] = None,
    least: Annotated[
        float, typer.Option(help="Share of right answers below which it ends with exit code 7.", min=0, max=1)
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """How near a student comes to its teacher on rows it was not trained on."""
    if split not in ("test", "train"):
        raise UsageError(f"--split {split}: test or train")
    require_libraries()
    from synthgen.cli.as_json import print_json
    from synthgen.train.evaluate import evaluate as evaluate_student

    found = evaluate_student(
        student,
        dataset,
        against=against,
        split="test" if split == "test" else "train",
        limit=limit,
        max_tokens=max_tokens,
        batch_size=batch_size,
        out=out,
        say=say,
    )
    if as_json:
        print_json(asdict(found))
    else:
        _print_evaluation(found)
    if found.student.right.value < least:
        raise CriteriaNotMet(
            f"{student}: {found.student.right.value:.1%} of its answers are right, wanted {least:.0%}"
        )


def _print_evaluation(found: "Evaluation") -> None:
    print(f"{found.rows:,} rows; 95 % intervals")
    for one in (found.student, found.against):
        if one is None:
            continue
        shares = {
            "right (the teacher's text, or its JSON value)": one.right,
            "the very text": one.same,
            "valid JSON": one.json,
            "ended by itself": one.finished,
        }
        print(safe(one.checkpoint))
        for name, share in shares.items():
            if share is not None:
                print(f"  {name}: {share.value:.1%} ({share.low:.1%} to {share.high:.1%}) of {share.n:,}")
        print(f"  words in common (F1): {one.words:.3f}")
        print(f"  loss on the teacher's tokens: {one.nll:.3f} nats")
    if found.p is not None:
        print(
            f"right only in the first: {found.better}, only in the second: {found.worse} (p = {found.p:.2g})"
        )
    print_refused(found.refused)
