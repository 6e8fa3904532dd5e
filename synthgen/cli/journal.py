"""`synthgen journal verify`: is what was paid for still there?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synthgen.cli.terminal import safe
from synthgen.errors import StorageError, UsageError

if TYPE_CHECKING:  # numpy is not loaded for --help
    from synthgen.journal.verify import Verification

__all__ = ["app"]

app = typer.Typer(help="Look after the journal of a run.", no_args_is_help=True, rich_markup_mode=None)

_SHOWN = 20


@app.callback()
def journal() -> None:
    """Look after the journal of a run."""


@app.command()
def verify(
    run: Annotated[Path, typer.Argument(help="A run folder.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Read every line of a journal: damage, double payments, sends that may have been paid. Exit code 6 on damage."""
    from synthgen.cli.as_json import print_json
    from synthgen.journal import lock_run
    from synthgen.journal.verify import verify as verify_journal

    folder = run / "journal"
    if not folder.is_dir():
        raise UsageError(f"{run}: not a run folder (no journal/ in it)")
    release = lock_run(folder)
    try:
        found = verify_journal(folder)
    finally:
        release()
    if as_json:
        print_json(found.as_json())
    else:
        _print_tables(found)
    if found.damaged:
        raise StorageError(
            f"{run}: the journal is damaged in {len(found.damaged)} places; "
            "`synthgen generate` asks again what they held, all else is kept"
        )


def _print_tables(found: "Verification") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    table = Table("segment", "entries", "MiB", "MiB on disk", box=None, pad_edge=False)
    for segment in found.segments:
        sizes = (f"{size / 2**20:.1f}" for size in (segment.raw_bytes, segment.disk_bytes))
        table.add_row(segment.name, str(segment.entries), *sizes)
    console.print(table)
    money = Table("", "count", "USD", box=None, pad_edge=False)
    unusable = found.entries.get("X", 0)
    money.add_row("answers", str(found.entries.get("R", 0)), f"{found.paid_usd:.6f}")
    money.add_row("unusable replies", str(unusable), f"{found.unusable_usd:.6f}")
    money.add_row("possibly paid", str(len(found.possibly_paid)), f"{found.possibly_paid_usd:.6f}")
    money.add_row("double payments", str(len(found.double_payments)), f"{found.extra_usd:.6f}")
    under_way = found.batches_under_way
    if under_way:
        requests = sum(batch.requests for batch in under_way)
        money.add_row("in batches under way", str(requests), f"{sum(batch.usd for batch in under_way):.6f}")
    console.print(money)
    sends = [
        f"{send.key}  {send.reason}  {send.usd:.6f} USD{'  answered since' if send.answered else ''}"
        for send in found.possibly_paid
    ]
    payments = [
        f"{payment.key}  {payment.answers} answers  {payment.extra_usd:.6f} USD too many"
        for payment in found.double_payments
    ]
    lists = {"possibly paid": sends, "double payments": payments, "damaged": found.damaged}
    for title, lines in lists.items():
        if lines:
            console.print(f"{title}:")
        for line in lines[:_SHOWN]:
            console.print(f"  {safe(line)}")
        if len(lines) > _SHOWN:
            console.print(f"  and {len(lines) - _SHOWN} more (--json has all)")
    if found.torn_tail_bytes:
        console.print(
            f"{found.torn_tail_bytes} bytes of an unfinished line at the end; the next run cuts them"
        )
    if not found.damaged:
        console.print("intact: every line, every index")
