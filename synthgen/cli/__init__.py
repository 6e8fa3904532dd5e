"""The command line: verbs over `synthgen.api`, nothing else.

In: arguments. Out: results on stdout (`--json` everywhere), everything for people on stderr, exit codes of
`synthgen.errors`. Heavy imports happen inside the verbs, so `synthgen --help` stays quick.
"""

import atexit
import gc
import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthgen.cli.dedup import dedup as dedup_verb
from synthgen.cli.doctor import doctor
from synthgen.cli.journal import app as journal_app
from synthgen.cli.judge import app as judge_app
from synthgen.cli.policy import app as policy_app
from synthgen.cli.report import report as report_verb
from synthgen.cli.terminal import safe
from synthgen.cli.train import app as train_app
from synthgen.errors import PolicyError, SynthgenError, UsageError

if TYPE_CHECKING:
    from synthgen.pipeline import Progress

__all__ = ["app", "main"]

app = typer.Typer(
    name="synthgen",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(journal_app, name="journal")
app.add_typer(judge_app, name="judge")
app.add_typer(policy_app, name="policy")
app.add_typer(train_app, name="train")
app.command()(doctor)

Recipe = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key of the recipe: a.b=c. May be repeated.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def _version(wanted: bool) -> None:
    if wanted:
        from synthgen.assets import package_version

        print(f"synthgen {package_version()}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Turn prompts into supervised fine-tuning data with teacher language models."""


@app.command()
def generate(
    recipe: Recipe,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Run folder. Default: runs/<name>.")] = None,
    overrides: Overrides = None,
    max_cost: Annotated[float | None, typer.Option(help="Cap in USD; overrides budget_usd.", min=0)] = None,
    ask_only: Annotated[bool, typer.Option(help="Stop after the journal: publish nothing.")] = False,
    retry_failed: Annotated[bool, typer.Option(help="Ask again what failed for good.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for batches, or submit them and end (exit code 3).")
    ] = True,
    drain: Annotated[
        float, typer.Option(help="Seconds that SIGINT or SIGTERM leaves the answers under way.", min=0)
    ] = 120,
    as_json: AsJson = False,
) -> None:
    """Ask the teachers, refine, and publish the dataset. The same command again resumes, or has nothing to do."""
    from synthgen import api
    from synthgen.cli.memory import give_back_memory

    give_back_memory()
    loaded = api.load_recipe(recipe, overrides or ())
    with _watched(quiet=as_json) as (progress, say):
        options = api.Options(
            max_cost_usd=max_cost,
            ask_only=ask_only,
            retry_failed=retry_failed,
            handle_signals=True,
            wait=wait,
            drain_s=drain,
            progress=progress,
            say=say,
        )
        report = api.generate(loaded, out, options=options)
    if as_json:
        from synthgen.cli.as_json import print_json

        print_json(report.as_json())
    else:
        from synthgen.cli.output import print_report

        print_report(report, as_json=False, published=not ask_only)
    for warning in report.warnings:
        print(f"warning: {safe(warning)}", file=sys.stderr)
    _end(report.problem)


def _watched(*, quiet: bool) -> "AbstractContextManager[tuple[Progress, Callable[[str], None]]]":
    """The live view; where a program reads, only what must be said, and no library for terminals."""
    if quiet:
        from synthgen.pipeline.progress import Progress

        return nullcontext((Progress(), lambda text: print(text, file=sys.stderr)))
    from synthgen.cli.live import watching

    return watching(quiet=False)


@app.command()
def cancel(
    run: Annotated[Path, typer.Argument(help="A run folder.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Cancel the batches of a run at their vendors. Answers finished by then are kept; exit code 3 if one stays open."""
    from synthgen import api
    from synthgen.cli.output import print_cancelled

    cancelled = api.cancel(run, say=lambda text: print(safe(text), file=sys.stderr))
    print_cancelled(cancelled, as_json=as_json)
    _end(cancelled.problem)


@app.command()
def plan(
    recipe: Recipe,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Run folder. Default: runs/<name>.")] = None,
    overrides: Overrides = None,
    max_cost: Annotated[float | None, typer.Option(help="Cap in USD; overrides budget_usd.", min=0)] = None,
    show: Annotated[int, typer.Option(help="Show the first N prompts as they would be sent.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Say what generate would ask, cost and be allowed to do. Sends nothing."""
    from synthgen import api
    from synthgen.cli.output import print_plan

    loaded = api.load_recipe(recipe, overrides or ())
    promised = api.plan(loaded, out, max_cost_usd=max_cost)
    print_plan(promised, api.preview(loaded, show) if show else [], as_json=as_json)
    if not promised.allowed:
        said = "policy: generate would send nothing; the decisions above say why"
        raise PolicyError("\n".join([said, *promised.hints]))


@app.command("filter")
def filter_(
    inputs: Annotated[list[Path], typer.Argument(help="A run folder, or Parquet/JSONL files and folders.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for the result.")] = None,
    chain: Annotated[str | None, typer.Option(help="Filter chain: a bundled name, a path, or none.")] = None,
    near: Annotated[bool, typer.Option("--near/--no-near", help="Near-duplicate removal.")] = True,
    dedup: Annotated[
        str | None,
        typer.Option(
            help="Who stays of similar rows: first (smallest id), longest, best:SCORE, random:SEED. Default: first; "
            "of a run, the order of its plan."
        ),
    ] = None,
    allow_collapse: Annotated[
        bool, typer.Option(help="Go on although what similar rows lose looks like a template.")
    ] = False,
    keep: Annotated[str | None, typer.Option(help="Rule a stored score must satisfy, like '>= 4'.")] = None,
    score: Annotated[
        str, typer.Option(help="Which score --keep looks at: a column, or a stored one.")
    ] = "judge",
    use: Annotated[list[str] | None, typer.Option(help="What the data is for; needs --origin.")] = None,
    origin: Annotated[str | None, typer.Option(help="Who wrote foreign answers: teacher@route.")] = None,
    origin_column: Annotated[str | None, typer.Option(help="Column that holds teacher@route.")] = None,
    row_license: Annotated[str, typer.Option(help="Licence of foreign prompts: own, or an SPDX id.")] = "own",
    actor: Annotated[
        list[str] | None, typer.Option(help="A fact about you, for foreign data: mau=5000. May be repeated.")
    ] = None,
    on_deny: Annotated[
        str,
        typer.Option(help="Rows that policy refuses: fail, drop them, or split what cannot stand together."),
    ] = "fail",
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Refuse nothing; stamp the output policy_enforced=false.")
    ] = False,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="A benchmark (Parquet, JSONL, CSV, text) no row may repeat: a path, or {path: ..., fields: [...], ngram: 8}. "
            "May be repeated."
        ),
    ] = None,
    select: Annotated[
        int | None,
        typer.Option(help="Of what is accepted, only N rows, whatever the recipe selects: see --by.", min=1),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="How --select chooses: diversity (the default), score:NAME or a product score:A*B, stratify:COLUMN."
        ),
    ] = None,
    test_share: Annotated[
        float,
        typer.Option(
            help="Share of foreign rows for data/test; train rows that repeat them go.", min=0, max=0.99
        ),
    ] = 0.0,
    dry_run: Annotated[
        int | None, typer.Option(help="Look at the first N rows only, write nothing.", min=1)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Refine again without any teacher: a run (from its journal), or anybody's dataset."""
    from synthgen import api
    from synthgen.cli.output import print_report
    from synthgen.cli.policy_given import actor_facts, on_deny_choice
    from synthgen.pipeline.filter_options import reference_of
    from synthgen.pipeline.selecting import parse_select

    if by is not None and select is None:
        raise UsageError(f"--by {by}: says how --select chooses; write --select N as well")
    if select is not None and dry_run is not None:
        raise UsageError("--select: looks at all rows; leave it out of a dry run")
    if out is None and dry_run is None:
        raise UsageError("filter: name a folder for the result with -o")
    options = api.FilterOptions(
        chain=chain,
        near=None if near else False,
        dedup=dedup,
        allow_collapse=allow_collapse,
        keep=keep,
        score=score,
        use=tuple(use or ()),
        origin=origin,
        origin_column=origin_column,
        row_license=row_license,
        actor=actor_facts(actor or ()),
        on_deny=on_deny_choice(on_deny),
        report_only=report_only,
        against=tuple(map(reference_of, against or ())),
        test_share=test_share,
        dry_run=dry_run,
        select=None if select is None else parse_select(select, by or "diversity"),
    )
    report = api.filter(inputs, out or Path("dry-run"), options=options)
    print_report(report, as_json=as_json, published=dry_run is None)
    for warning in report.warnings:
        print(f"warning: {safe(warning)}", file=sys.stderr)
    _end(report.problem)


app.command("dedup")(dedup_verb)
app.command("report")(report_verb)


@app.command()
def show(
    run: Annotated[Path, typer.Argument(help="A run folder.", show_default=False)],
    row: Annotated[str | None, typer.Option(help="Tell the whole story of one record, by its id.")] = None,
    samples: Annotated[int, typer.Option(help="How many sample records.", min=0)] = 3,
    unusable: Annotated[
        bool, typer.Option("--unusable", help="The replies that were paid and could not be used.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show counts, reasons, spend and samples of a run, or the story of one record."""
    from synthgen import api
    from synthgen.cli.output import print_shown, print_unusable

    if unusable:
        if row is not None:
            raise UsageError("--unusable: shows replies of all rows; leave --row out")
        print_unusable(api.unusable_replies(run), as_json=as_json)
        return
    print_shown(api.show(run, row=row, samples=samples), as_json=as_json)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="prompts, filters or teachers.")],
    as_json: AsJson = False,
) -> None:
    """List bundled prompts, filters and chains, or the providers, routes and prices synthgen knows."""
    from synthgen.cli.listing import listing, print_listing

    print_listing(listing(what), as_json=as_json)


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from synthgen import api

    print(json.dumps(api.recipe_schema(), indent=2, ensure_ascii=False))


def _end(problem: SynthgenError | None) -> None:
    if problem is not None:
        raise problem


def main() -> None:
    """Entry point: one clear line and the documented exit code for everything that can go wrong."""
    # The system takes the memory back; looking for cycles in all that was imported costs 0.3 s of CPU at the end.
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
    # The plug-ins of pydantic watch validations; looking for some reads what is known of every installed package.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        # Not `app()`: that turns a reader who hung up into exit code 1, which is kept for bugs.
        command = typer.main.get_command(_with_verb(sys.argv[1:2]))
        with command.make_context("synthgen", sys.argv[1:]) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except SynthgenError as error:
        print(f"synthgen: {safe(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print(
            "synthgen: interrupted; nothing half-written stays, the same command goes on or begins again",
            file=sys.stderr,
        )
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read stdout has gone; the interpreter must not try to flush it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:  # the boundary of the program
        _usage_or_bug(error)


def _with_verb(named: list[str]) -> typer.Typer:
    """The command line with no other verb than the one that is called: building all takes 14 ms."""
    one = copy(app)
    one.registered_commands = [
        info
        for info in app.registered_commands
        if info.callback and [info.name or info.callback.__name__] == named
    ]
    one.registered_groups = [info for info in app.registered_groups if [info.name] == named]
    return one if one.registered_commands or one.registered_groups else app


def _usage_or_bug(error: Exception) -> None:
    """Errors of the argument parser are the user's (2), anything else is ours (1, with its traceback)."""
    show_usage = getattr(error, "show", None)
    if callable(show_usage):
        show_usage()
        sys.exit(2)
    import traceback

    traceback.print_exc()
    print(
        f"synthgen: this is a bug ({type(error).__name__}); please report it with the lines above",
        file=sys.stderr,
    )
    sys.exit(1)
