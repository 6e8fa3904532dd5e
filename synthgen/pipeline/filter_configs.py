"""`filter --on-deny split`: rows that policy lets stand only apart go into folders of their own; and the report of it all.

In: a way to refine one group into one folder. Out: one report over all folders. Guarantee: planned stays the sum.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from synthgen.dataset import configs_card, write_bytes
from synthgen.journal import JournalIndex, require_folder
from synthgen.pipeline.checked import checked, unchecked
from synthgen.pipeline.filter_options import FilterOptions
from synthgen.pipeline.report import OUTCOMES, Report
from synthgen.pipeline.usage import usage_json
from synthgen.pipeline.verdicts import Counts
from synthgen.refine import Chain

__all__ = ["each_config", "report_of"]


def each_config(
    out: Path, options: FilterOptions, refine: Callable[[int, Path], tuple[Report, int]]
) -> Report:
    """Refine once, or for `split` once per group of rows that may stand together, each into `config-N`.

    The report counts what was accepted and rejected in all of them; what is set aside stays the same.

    Raises:
        UsageError: `out` is a file.
    """
    if options.dry_run is None:
        require_folder(out)
    if options.on_deny != "split" or options.dry_run is not None:
        return refine(0, out)[0]
    first, groups = refine(0, out / "config-0")
    reports = [first, *(refine(group, out / f"config-{group}")[0] for group in range(1, groups))]
    counts = dict(first.counts)
    for outcome in ("accepted", "rejected"):
        counts[outcome] = sum(report.counts.get(outcome, 0) for report in reports)
        counts["surplus"] -= counts[outcome] - first.counts.get(outcome, 0)
    write_bytes(
        out / "README.md", configs_card(out.name, [f"config-{group}" for group in range(groups)]).encode()
    )
    reasons = {key: sum(r.reasons.get(key, 0) for r in reports) for r in reports for key in r.reasons}
    reasons |= {key: n for key, n in first.reasons.items() if key.startswith("policy/")}
    return replace(first, out=out, name=out.name, counts=counts, reasons=reasons)


def report_of(
    out: Path,
    name: str,
    counts: Counts,
    index: JournalIndex | None,
    started: float,
    chain: Chain,
    names: Sequence[str] = (),
) -> Report:
    """`names`: the fields of the rows, for who must name one."""
    outcomes = {name: counts.outcomes.get(name, 0) for name in OUTCOMES}
    return Report(
        out=out,
        name=name,
        counts={"planned": sum(outcomes.values()), **outcomes},
        reasons={
            "/".join(key): n
            for key, n in sorted(counts.reasons.items(), key=lambda item: (-item[1], item[0]))
        },
        flags=dict(sorted(counts.flags.items())),
        checked=checked(chain, counts),
        warnings=tuple(unchecked(chain, counts, names)),
        examples={"/".join(key): f"{where}: {said}" for key, (where, said) in counts.examples.items()},
        sent=0,
        usage=usage_json(index.ledger, None) if index else None,
        elapsed_s=time.monotonic() - started,
    )
