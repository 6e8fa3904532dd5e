"""`synthgen report`: coverage, diversity, losses and bias of a run or of anybody's dataset."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from synthgen.cli.terminal import safe
from synthgen.types import JSONValue

if TYPE_CHECKING:  # numpy is not loaded for --help
    from rich.console import Console

__all__ = ["report"]

Section = Mapping[str, JSONValue]
_TOPICS = 12
_LOSSES = 20


def report(
    inputs: Annotated[list[Path], typer.Argument(help="A run or dataset folder, or Parquet/JSONL files.")],
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Log of real requests (JSONL, CSV, Parquet) to compare with. May be repeated."),
    ] = None,
    column: Annotated[str | None, typer.Option(help="Column of the log that holds the request.")] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Field whose values and combinations are counted. May be repeated."),
    ] = None,
    seeds: Annotated[
        Path | None, typer.Option(help="Write requests the rows do not cover, as JSONL for a source.")
    ] = None,
    seed_rows: Annotated[int, typer.Option(help="At most so many of them.", min=1)] = 100,
    words: Annotated[
        Path | None, typer.Option(help="Word lists for the bias part (TOML). Default: English ones.")
    ] = None,
    swaps: Annotated[
        Path | None,
        typer.Option(
            help="Write prompts that name a profession twice, about a woman and about a man, as JSONL for a source."
        ),
    ] = None,
    swap_pairs: Annotated[int, typer.Option(help="At most so many pairs of them.", min=1)] = 200,
    swapped: Annotated[
        Path | None, typer.Option(help="What --swaps wrote: compare the answers to its pairs in these rows.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Default: report.json in the folder, if it is one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Say what a dataset covers, how varied it is, who loses rows where, and what it says of gender. Changes nothing."""
    from synthgen import api
    from synthgen.cli.as_json import print_json
    from synthgen.cli.output import console
    from synthgen.errors import UsageError

    if seeds is not None and not against:
        raise UsageError("--seeds: are requests that the rows do not cover; name a log with --against")
    options = api.ReportOptions(
        against=tuple(against or ()),
        column=column,
        by=tuple(by or ()),
        seeds=seed_rows,
        words=words,
        swaps=swap_pairs if swaps is not None else 0,
        swapped=swapped,
    )
    found = api.report(inputs, options=options)
    if out is None and len(inputs) == 1 and inputs[0].is_dir():
        out = inputs[0] / "report.json"
    if out is not None:
        found.write(out)
    if seeds is not None:
        found.write_seeds(seeds)
        print(f"{len(found.seeds)} seeds: {safe(str(seeds))}", file=sys.stderr)
    if swaps is not None:
        found.write_swaps(swaps)
        print(f"{len(found.swaps) // 2} pairs: {safe(str(swaps))}", file=sys.stderr)
    if as_json:
        print_json(found.content)
        return
    _print(console(), found.content)
    if out is not None:
        print(f"report: {safe(str(out))}")


def _print(to: "Console", content: Section) -> None:
    read = "" if content["rows"] == content["rows_read"] else f", {content['rows_read']} of them read"
    to.print(f"{content['rows']} rows{read}")
    _diversity(to, content)
    _languages(to, _section(content["languages"]))
    if "coverage" in content:
        _coverage(to, _section(content["coverage"]))
    if "attributes" in content:
        _attributes(to, _section(content["attributes"]))
    if "losses" in content:
        _losses(to, _rows(content["losses"]))
    for entry in _rows(content.get("decontamination")):
        to.print(
            f"benchmark {safe(str(entry['name']))}: {entry['rows']} rows repeat one of {entry['items']} items "
            f"(runs of {entry['ngram']} words)"
        )
    _bias(to, _section(content["bias"]))
    if "swaps" in content:
        _swaps(to, _section(content["swaps"]))
    if "counterfactual" in content:
        _counterfactual(to, _section(content["counterfactual"]))


def _diversity(to: "Console", content: Section) -> None:
    sides = _section(content["diversity"])
    both = [_section(sides[name]) for name in ("prompts", "answers")]
    lines = [
        (
            f"distinct-{n} in {both[0]['words']} / {both[1]['words']} words",
            *(side[f"distinct_{n}"] for side in both),
        )
        for n in (1, 2, 3)
    ]
    lines.append(("4-grams that another row has", *(side["repeated_4grams"] for side in both)))
    lines.append(("compression ratio", *(side["compression"] for side in both)))
    lines.append(("ten commonest openings", *(_section(side["openings"])["top10_share"] for side in both)))
    clusters = [_section(side["clusters"]) for side in both]
    alike = (f"{c['rows_in_clusters']} of {c['rows']} in {c['clusters']}" for c in clusters)
    lines.append(("rows in loose clusters", *alike))
    lengths = (_section(side["lengths"]) for side in both)
    lines.append(("words, 5 % / median / 95 %", *(f"{n['p5']} / {n['p50']} / {n['p95']}" for n in lengths)))
    _table(to, "diversity", ("", "prompts", "answers"), lines)


def _languages(to: "Console", sides: Section) -> None:
    prompts, answers = _section(sides["prompts"]), _section(sides["answers"])
    lines = [(name, prompts.get(name, 0), answers.get(name, 0)) for name in {**prompts, **answers}]
    _table(to, "languages", ("", "prompts", "answers"), lines)


def _coverage(to: "Console", found: Section) -> None:
    seen = _section(found["ngrams_seen"])
    told = ", ".join(f"{share} of their {n}-grams" for n, share in seen.items())
    to.print(
        f"\nagainst {found['requests']} requests: the rows have {told}; {found['rare_cases']} rare cases"
    )
    topics = _rows(found["topics"])
    lacking = [topic for topic in topics if topic["lacking"]]
    shown = [*lacking, *(topic for topic in topics if not topic["lacking"])][:_TOPICS]
    lines = [
        (
            t["topic"],
            t["requests"],
            t["requests_share"],
            t["rows"],
            t["rows_share"],
            "lacking" if t["lacking"] else "",
        )
        for t in shown
    ]
    if not topics:
        return
    title = f"topics of the requests: {len(lacking)} of {len(topics)} are lacking"
    _table(to, title, ("topic", "requests", "share", "rows", "share", ""), lines)


def _attributes(to: "Console", found: Section) -> None:
    lines = [
        (name, value["value"], value["candidates"], value["accepted"])
        for name, values in _section(found["values"]).items()
        for value in _rows(values)
    ]
    title = f"attributes: {found['empty']} of {found['cells']} combinations have no accepted row"
    _table(to, title, ("attribute", "value", "candidates", "accepted"), lines)


def _losses(to: "Console", losses: Sequence[Section]) -> None:
    lines = [
        (f"{x['stage']}/{x['reason']}", x["teacher"], f"{x['rows']} of {x['of']}", x["share"],
         f"{x['low']} to {x['high']}", "unlike the others" if x["unlike_others"] else "")
        for x in losses[:_LOSSES]
    ]  # fmt: skip
    _table(to, "losses, with 95 % intervals", ("by", "teacher", "rows", "share", "", ""), lines)


def _bias(to: "Console", bias: Section) -> None:
    lines = []
    for found in _rows(bias["professions"]):
        sides = [_section(found[name]) for name in ("prompts", "answers")]
        if not any("log_odds" in side for side in sides):
            continue
        neutral = _section(found["after_neutral"])
        lines.append(
            (
                found["profession"],
                *(f"{side['female']} / {side['male']}" for side in sides),
                *(_interval(side) for side in sides),
                _interval(_section(found["amplified"] or {})),
                f"{neutral['female']} / {neutral['male']}",
            )
        )
    head = (
        "profession",
        "prompts f / m",
        "answers f / m",
        "log-odds prompts",
        "answers",
        "amplified",
        "unasked f / m",
    )
    _table(to, f"gender near professions, {bias['window']} words ({bias['words']})", head, lines)


def _swaps(to: "Console", found: Section) -> None:
    why = ", ".join(f"{reason} {count}" for reason, count in _section(found["skipped"]).items())
    to.print(
        f"\nprompts with a profession and a gender: {found['prompts']}; {found['can_be_swapped']} of them can be asked "
        "about the other gender" + (f" (not: {why})" if why else "")
    )


def _counterfactual(to: "Console", found: Section) -> None:
    length, words = _section(found["length"]), _section(found["words"])
    measures: list[tuple[str, Section]] = [
        ("words of an answer", length),
        ("refuses", _section(found["refusals"])),
        ("speaks of the other gender alone", _section(found["other_gender"])),
        *((f"names: {row['profession']}", row) for row in _rows(found["professions"])),
        *((f"says: {row['word']}", row) for row in _rows(words["most"])),
    ]
    lines = [
        (name, row["female"], row["male"], f"{row['female_more']} / {row['male_more']}", _interval(row), row["p"],
         "differs" if row["differs"] else "")
        for name, row in measures
    ]  # fmt: skip
    title = (
        f"the same prompts about women and men: {found['pairs']} pairs, {found['unanswered']} without both answers; "
        f"{found['differing']} of {found['tests']} measures and {words['differing']} of {words['tested']} words differ"
    )
    _table(to, title, ("answers", "women", "men", "more in pairs", "log-odds", "p", ""), lines)
    to.print(
        f"answers about women are {length['ratio']} times as long ({length['ratio_low']} to {length['ratio_high']}); "
        f"{_section(found['alike'])['same']} pairs have the same answer"
    )


def _interval(found: Section) -> str:
    return f"{found['log_odds']} ({found['low']} to {found['high']})" if "log_odds" in found else "-"


def _table(to: "Console", title: str, head: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(*head, title=f"\n{title}", title_justify="left", box=None, pad_edge=False)
    for line in lines:
        table.add_row(*(Text(safe(str(cell), 80)) for cell in line))
    if table.row_count:
        to.print(table)


def _section(value: JSONValue) -> Section:
    return cast(Section, value)


def _rows(value: JSONValue) -> Sequence[Section]:
    return cast(Sequence[Section], value or ())
