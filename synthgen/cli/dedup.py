"""`synthgen dedup`: near-duplicate rows of any Parquet or JSONL."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthgen.cli.passing import passing
from synthgen.cli.terminal import safe
from synthgen.errors import UsageError

if TYPE_CHECKING:  # numpy is not loaded for --help
    from synthgen.pipeline import DedupReport

__all__ = ["dedup"]


def dedup(
    inputs: Annotated[list[Path], typer.Argument(help="Parquet/JSONL files, folders of them, patterns.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for the result.")] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(
            help="Column to compare; may be repeated. Of chats also: prompt, completion. Default: by format."
        ),
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="Jaccard from which rows are near duplicates, 0..1.")
    ] = 0.8,
    shingle: Annotated[str, typer.Option(help="What is compared: word:N or char:N.")] = "word:5",
    keep: Annotated[
        str, typer.Option(help="Who stays: first (smallest id), longest, best:COLUMN, random:SEED.")
    ] = "first",
    against: Annotated[
        list[Path] | None, typer.Option(help="Reference files: rows that repeat theirs go. May be repeated.")
    ] = None,
    id_column: Annotated[str, typer.Option("--id", help="Column that names a row.")] = "id",
    source: Annotated[
        str | None, typer.Option(help="Column that names a row's source. Default: its file.")
    ] = None,
    template: Annotated[
        Path | None,
        typer.Option(help="Prompt template, a text or a prompt file; its fixed text is not compared."),
    ] = None,
    num_perm: Annotated[int, typer.Option(help="MinHash permutations.")] = 128,
    seed: Annotated[int, typer.Option(help="Seed of the permutations.")] = 1,
    hash_name: Annotated[
        str, typer.Option("--hash", help="fast; sha1 or xxh32: signatures equal to datasketch's.")
    ] = "fast",
    pairs: Annotated[
        Path | None, typer.Option(help="Write all pairs that are alike, with their Jaccard, as Parquet.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Default: one per CPU.", min=1)] = None,
    allow_collapse: Annotated[
        bool, typer.Option(help="Go on although a cluster or a source's loss looks like a template.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Remove near-duplicate rows, verified by exact Jaccard. Columns stay; dup_cluster, dup_of, dup_jaccard are added."""
    from synthgen import api
    from synthgen.cli.as_json import print_json
    from synthgen.refine.minhash_rule import MinHashRule

    if out is None:
        raise UsageError("dedup: name a folder for the result with -o")
    rule = MinHashRule(threshold=threshold, shingle=shingle, num_perm=num_perm, seed=seed, hash=hash_name)  # type: ignore[arg-type]  # checked there
    with passing() as say:
        options = api.DedupOptions(
            fields=tuple(field or ()),
            rule=rule,
            keep=keep,
            against=tuple(against or ()),
            id=id_column,
            source=source,
            template=None if template is None else _read(template),
            allow_collapse=allow_collapse,
            pairs=pairs,
            threads=threads,
            say=say,
        )
        report = api.dedup(inputs, out, options=options)
    if as_json:
        print_json(report.as_json())
    else:
        _print(report)
    for warning in report.warnings:
        print(f"warning: {safe(warning)}", file=sys.stderr)
    if report.problem is not None:
        raise report.problem


def _read(template: Path) -> str:
    """A text, or the messages of a prompt file."""
    import yaml

    try:
        text = template.read_text(encoding="utf-8")
        if template.suffix not in (".yaml", ".yml"):
            return text
        return "{{ }}".join(str(message["content"]) for message in yaml.safe_load(text)["messages"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UsageError(f"--template {template}: cannot be read: {error}") from error


def _print(report: "DedupReport") -> None:
    lines = [f"{name:<12}{count}" for name, count in report.counts.items()]
    lines += [f"  {reason}  {count}" for reason, count in report.reasons.items()]
    lines.append(
        f"{report.clusters} clusters, the largest of {report.largest} rows; {report.elapsed_s:.1f} s"
    )
    if report.problem is None:
        lines.append(f"dataset: {report.out}")
    print("\n".join(map(safe, lines)))
