"""`synthgen train score`: what an open-weight checkpoint says of answers that are there."""

from pathlib import Path
from typing import Annotated

import typer

from synthgen.cli.train_given import AsJson, Dataset, Overrides, print_refused, require_libraries
from synthgen.errors import UsageError

__all__ = ["score"]


def score(
    dataset: Dataset,
    teacher: Annotated[str, typer.Option(help="The checkpoint that scores: a folder or a hub id.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="Folder for the scores. Default: <dataset>.logprobs (or .ifd) beside it."
        ),
    ] = None,
    k: Annotated[
        int | None, typer.Option(help="How many tokens of each position. Default: 20.", min=1)
    ] = None,
    ifd: Annotated[
        bool,
        typer.Option(
            "--ifd",
            help="Instead of soft labels: the rows with the column ifd, how little the prompt helps the answer.",
        ),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option("-c", "--config", help="The student's file, whose `data` says what an answer is."),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Soft labels for stored answers, from one pass of an open-weight teacher; `loss.kd.logprobs` names them then."""
    if ifd and k is not None:
        raise UsageError(f"--k {k}: is for soft labels; --ifd scores whole answers, leave one of them out")
    require_libraries()
    from synthgen.cli.as_json import print_json
    from synthgen.train.config import load_student
    from synthgen.train.ifd import rate_dataset
    from synthgen.train.reading import read_dataset
    from synthgen.train.score import score_conversations

    data = load_student(config, overrides or ()).config.data if config is not None else None
    target = out or dataset.with_name(f"{dataset.name}.{'ifd' if ifd else 'logprobs'}")
    if ifd:
        rated = rate_dataset(dataset, teacher, target, data=data)
        if as_json:
            print_json(
                {
                    "out": str(target),
                    "rows": rated.rows,
                    "below_1": rated.below_1,
                    "refused": dict(rated.refused),
                }
            )
            return
        print(f"scored {rated.rows:,} rows into {target}; ifd below 1: {rated.below_1:,}")
        print_refused(rated.refused)
        return
    conversations = read_dataset(dataset, limit=data.limit if data else None).conversations
    scored = score_conversations(conversations, teacher, target, k=k or 20, data=data)
    if as_json:
        print_json({"out": str(target), "turns": scored.turns, "refused": dict(scored.refused)})
        return
    print(f"scored {scored.turns:,} answers into {target}")
    print_refused(dict(scored.refused))
