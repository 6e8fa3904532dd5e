"""`synthgen doctor`: what can this endpoint really do?

In: a recipe or a URL. Out: one table an endpoint on stdout, or JSON; the price, and the question for consent, on stderr.
Rejected: asking for consent for a recipe as well (its teachers, terms and budget are written down).
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthgen.cli.terminal import safe
from synthgen.errors import UsageError

if TYPE_CHECKING:  # HTTP libraries are not loaded for --help
    from synthgen.asking.doctor import Finding
    from synthgen.asking.doctor.questions import Bound
    from synthgen.pipeline.doctor import Examination

__all__ = ["doctor"]


def doctor(
    target: Annotated[
        str, typer.Argument(help="A recipe, or the base URL of an endpoint.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="Recipe only: run folder that keeps the result. Default: runs/<name>."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key of the recipe: a.b=c. May be repeated.")
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option("--max-cost", "--max-cost-usd", help="Cap in USD; overrides budget_usd.", min=0),
    ] = None,
    model: Annotated[str | None, typer.Option(help="URL only: the model to ask.")] = None,
    provider: Annotated[
        str | None, typer.Option(help="URL only: openai, vllm or anthropic. Default: openai.")
    ] = None,
    route: Annotated[
        str | None, typer.Option(help="URL only: whose terms hold there, like self-hosted.")
    ] = None,
    hf: Annotated[
        str | None, typer.Option(help="URL only: org/name of the open weights, for their licence.")
    ] = None,
    key_env: Annotated[
        str | None,
        typer.Option("--api-key-env", help="URL only: the environment variable that holds the key."),
    ] = None,
    use: Annotated[
        str | None, typer.Option(help="URL only: what policy decides on. Default: evaluate-only.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="URL only: ask without further consent.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Prove what each endpoint can do, by asking it: a few small paid requests, their price said beforehand."""
    from synthgen import api
    from synthgen.cli.as_json import print_json
    from synthgen.pipeline.doctor import DoctorOptions, endpoint_recipe

    bare = target.startswith(("http://", "https://"))
    if bare:
        if model is None:
            raise UsageError("doctor: a URL needs --model: which one is to be asked?")
        if out is not None:
            raise UsageError(
                "doctor: --out is for a recipe: of a URL nothing is kept; --json prints the result"
            )
        made = endpoint_recipe(
            target,
            model,
            provider=provider or "openai",
            route=route,
            hf=hf,
            api_key_env=key_env,
            use=use or "evaluate-only",
        )
        loaded = api.load_recipe(made, overrides or ())
    else:
        of_url = {
            "--model": model,
            "--provider": provider,
            "--route": route,
            "--hf": hf,
            "--api-key-env": key_env,
            "--use": use,
        }
        _refuse_for_recipe(target, [option for option, value in of_url.items() if value is not None])
        loaded = api.load_recipe(Path(target), overrides or ())

    def agree(bound: "Bound") -> None:
        print(f"doctor: {_promise(bound)}", file=sys.stderr)
        if bare and not yes:
            _ask_consent()

    options = DoctorOptions(max_cost_usd=max_cost, store=not bare, agree=agree, tell=_tell)
    found = api.doctor(loaded, out, options=options)
    if as_json:
        print_json(found.as_json())
    else:
        _print_tables(found)
    if found.problem is not None:
        raise found.problem


def _refuse_for_recipe(target: str, given: list[str]) -> None:
    """What only a URL takes would be ignored, and another teacher asked and paid than the one that was named."""
    if "://" in target:
        raise UsageError(f"doctor: {target}: expected a recipe, or a URL with http:// or https://")
    if given:
        if not Path(target).exists():
            raise UsageError(f"doctor: {target}: no such recipe; a URL begins with http:// or https://")
        raise UsageError(
            f"doctor: {', '.join(given)}: only for a URL; override a key of the recipe with --set"
        )


def _promise(bound: "Bound") -> str:
    price = "at an unknown price" if bound.usd is None else f"for at most {bound.usd:.6f} USD"
    return (
        f"at most {bound.requests} requests with {bound.input_tokens} input and {bound.output_tokens} output tokens "
        f"{price}"
    )


def _ask_consent() -> None:
    if not sys.stdin.isatty():
        raise UsageError("doctor: nothing was sent; say --yes to ask an endpoint that no recipe names")
    if not typer.confirm("ask?", err=True):
        raise UsageError("doctor: nothing was sent")


def _tell(alias: str, finding: "Finding") -> None:
    """What was found last, for whoever waits."""
    if sys.stderr.isatty():
        print(safe(f"{alias}: {finding.probe} {finding.verdict}"), file=sys.stderr)


def _print_tables(found: "Examination") -> None:
    from rich.table import Table
    from rich.text import Text

    from synthgen.cli.output import console

    out = console()
    for item in found.diagnoses:
        title = f"{item.alias}: {item.model} at {item.endpoint} ({item.provider}, {item.route})"
        table = Table(
            "probe",
            "verdict",
            "evidence",
            title=Text(safe(title)),
            title_justify="left",
            box=None,
            pad_edge=False,
        )
        for finding in item.findings:
            table.add_row(Text(finding.probe), Text(finding.verdict), Text(safe(finding.evidence)))
        out.print(table)
        cost = "cost unknown" if item.cost_usd is None else f"{item.cost_usd:.6f} USD"
        out.print(Text(f"{item.sent} requests, {cost}\n"))
    for alias in found.skipped:
        out.print(Text(f"{safe(alias)}: runs in this process, there is no endpoint to examine"))
