"""`synthgen policy`: may this teacher's output train that student, why, and what is owed for it?

Verbs that decide end with exit code 0 (allowed, with or without obligations) or 4 (review or deny, told apart in the
output); `cases` ends with 7 where a case is missed; a wrong rule file ends with 2.
"""

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthgen.errors import CriteriaNotMet, PolicyError, UsageError

if TYPE_CHECKING:  # nothing of the registry is loaded for --help
    from synthgen.policy import Ask, GateResult

__all__ = ["app"]

app = typer.Typer(
    help="Ask the policy: what is allowed, why, and what is owed for it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Rules = Annotated[
    list[Path] | None, typer.Option("--rules", help="Folder with rule files of your own. May be repeated.")
]
Uses = Annotated[list[str] | None, typer.Option("--use", help="What the data is for. May be repeated.")]
Today = Annotated[str | None, typer.Option("--today", help="Decide as of this day (YYYY-MM-DD).")]


@app.callback()
def policy() -> None:
    """Ask the policy: what is allowed, why, and what is owed for it."""


@app.command()
def check(
    target: Annotated[Path, typer.Argument(help="A recipe, or a run folder.", show_default=False)],
    use: Uses = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key of the recipe: a.b=c. May be repeated.")
    ] = None,
    on_deny: Annotated[
        str, typer.Option(help="For a run: fail, or say what drop or split would leave of its rows.")
    ] = "fail",
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Say what the policy says and end with 0.")
    ] = False,
    today: Today = None,
    as_json: AsJson = False,
) -> None:
    """Decide on a recipe before it runs, or again on the rows of a run: for wider uses, or after rules changed."""
    from synthgen import api
    from synthgen.cli.as_json import print_json
    from synthgen.cli.policy_given import on_deny_choice
    from synthgen.cli.policy_output import print_gate, print_groups

    found = api.policy_check(
        target, use=use or (), overrides=overrides or (), on_deny=on_deny_choice(on_deny), today=_day(today)
    )
    if as_json:
        print_json(found.as_json(enforced=not report_only))
    else:
        print_gate(found.result)
        print_groups(found)
    if not found.passed and not report_only:
        raise PolicyError(
            f"policy: {found.result.outcome} for use {', '.join(found.ask.uses)}{found.next_step}"
        )


@app.command()
def explain(
    teacher: Annotated[str, typer.Argument(help="A model, like org/name.", show_default=False)],
    route: Annotated[str, typer.Option(help="Where it is asked: a route of `synthgen policy list routes`.")],
    use: Uses = None,
    hf: Annotated[str | None, typer.Option(help="The published weights behind the name: org/name.")] = None,
    role: Annotated[
        str, typer.Option(help="teacher, rewriter, judge-shipped, judge-filter or embedder.")
    ] = "teacher",
    seed: Annotated[
        str, typer.Option(help="Licence of the source texts, and its relation: MIT:adapted.")
    ] = "own",
    upstream: Annotated[list[str] | None, typer.Option(help="Host behind a router. May be repeated.")] = None,
    student_base: Annotated[str | None, typer.Option(help="The base model of the student.")] = None,
    actor: Annotated[
        list[str] | None,
        typer.Option(help="A fact about you: mau=5000, territory=DE, maas=false. May be repeated."),
    ] = None,
    rules: Rules = None,
    today: Today = None,
    as_json: AsJson = False,
) -> None:
    """Decide on one teacher and tell every rule that spoke, with clause, source and date."""
    from synthgen.cli.as_json import print_json
    from synthgen.cli.policy_given import actor_facts, part_given
    from synthgen.cli.policy_output import print_gate
    from synthgen.policy import Ask, gate, load_registry, policy_json

    registry = load_registry(own=rules or ())
    ask = Ask(tuple(use or ("train-general",)), actor_facts(actor or ()), student_base, today=_day(today))
    part = part_given(teacher, route, hf, role, seed, tuple(upstream or ()))
    result = gate(registry, [part], ask)
    if as_json:
        print_json(policy_json(registry, ask, result))
    else:
        print_gate(result, chain=True)
    _refuse(result, ask)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="rules, routes, licences, models or seeds.")] = "rules",
    stale: Annotated[
        bool, typer.Option("--stale", help="Only rules whose review is overdue or whose text is old.")
    ] = False,
    rules: Rules = None,
    today: Today = None,
    as_json: AsJson = False,
) -> None:
    """List what the registry knows, how well it knows it, and what should be read again."""
    from synthgen.cli.as_json import print_json
    from synthgen.cli.policy_output import listed, print_listed
    from synthgen.policy import load_registry

    found = listed(load_registry(own=rules or ()), what, _day(today), stale=stale)
    if as_json:
        print_json(found)
    else:
        print_listed(found)


@app.command()
def diff(
    old: Annotated[str, typer.Argument(help="A run folder or POLICY.json, a registry folder, or `shipped`.")],
    new: Annotated[
        str, typer.Argument(help="The same; for a run: `shipped` asks its question again.")
    ] = "shipped",
    recipe: Annotated[
        Path | None, typer.Option(help="Tell only what changes for this recipe's teachers and uses.")
    ] = None,
    today: Today = None,
    as_json: AsJson = False,
) -> None:
    """Tell what changed between two states of the rules, or for a run since it was decided."""
    from synthgen.cli.as_json import print_json
    from synthgen.cli.policy_diff import differences
    from synthgen.cli.policy_output import print_changes

    changes = differences(old, new, recipe, _day(today) if today else None)
    if as_json:
        print_json({"changes": [change.as_json() for change in changes]})
    else:
        print_changes(changes)


@app.command()
def attest(
    recipe: Annotated[
        Path, typer.Argument(help="The recipe whose lock file gets the entry.", show_default=False)
    ],
    use: Annotated[str, typer.Option(help="The use that is decided on.")],
    because: Annotated[str, typer.Option(help="Why it is fine, in at least 40 characters.")],
    who: Annotated[str, typer.Option(help="Who decided.")],
    expires: Annotated[
        str, typer.Option(help="Last day it holds (YYYY-MM-DD), at most 12 months from today.")
    ],
    rule: Annotated[
        list[str] | None, typer.Option(help="A rule it answers for. Default: all that now want a review.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="Only for this route, model, seed licence or student.")
    ] = None,
    contract: Annotated[
        str | None, typer.Option(help="Makes it a waiver: the contract that permits it.")
    ] = None,
    document: Annotated[Path | None, typer.Option(help="The signed document of the contract.")] = None,
) -> None:
    """Record a person's decision in policy.lock.toml beside the recipe: it lifts review, with a contract also deny."""
    from synthgen import api
    from synthgen.cli.terminal import safe

    path, written = api.policy_attest(
        recipe,
        use=use,
        because=because,
        who=who,
        expires=_day(expires),
        rules=rule or (),
        subject=subject,
        contract=contract,
        document=document,
    )
    print(f"{path}: added\n{safe(written)}")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="A run, or what `filter` wrote.", show_default=False)],
    what: Annotated[
        str,
        typer.Argument(help="card, croissant, spdx, ai-act, obligations or policy.", show_default=False),
    ],
    use: Uses = None,
    student: Annotated[
        str | None, typer.Option(help="A model trained on the rows: its name is checked, and SPDX lists it.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file instead of stdout.")
    ] = None,
    today: Today = None,
) -> None:
    """Describe a published dataset: for its declared uses or wider ones, as documents other tools read."""
    from synthgen import api
    from synthgen.cli.policy_given import export_choice
    from synthgen.dataset import write_bytes

    document = api.policy_export(
        folder, export_choice(what), use=use or (), student=student, today=_day(today) if today else None
    )
    if output is None:
        print(document.decode(), end="")
    else:
        write_bytes(output, document)


@app.command()
def cases(
    table: Annotated[Path, typer.Argument(help="A CSV of cases.", show_default=False)],
    rules: Rules = None,
    as_json: AsJson = False,
) -> None:
    """Run a table of cases and print every miss with its chain of rules. Exit code 7 on any."""
    from synthgen.cli.as_json import print_json
    from synthgen.cli.policy_output import print_cases
    from synthgen.policy import load_registry
    from synthgen.policy.cases import run_cases

    results = run_cases(load_registry(own=rules or ()), table)
    missed = sum(not result.met for result in results)
    if as_json:
        print_json(
            {
                "met": len(results) - missed,
                "of": len(results),
                "cases": [result.as_json() for result in results],
            }
        )
    else:
        print_cases(results)
    if missed:
        raise CriteriaNotMet(f"{table}: {missed} of {len(results)} cases missed")


def _day(text: str | None) -> date:
    try:
        return date.fromisoformat(text) if text else date.today()  # noqa: DTZ011  # the user's calendar day
    except ValueError as error:
        raise UsageError(f"{text!r} is no day; write it as YYYY-MM-DD") from error


def _refuse(result: "GateResult", ask: "Ask") -> None:
    if not result.passed:
        raise PolicyError(f"policy: {result.outcome} for use {', '.join(ask.uses)}")
