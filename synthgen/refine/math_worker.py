"""Compares mathematical answers, one JSON line at a time; a process of its own, because it may have to be killed.

In: lines `[reference, answer]` on stdin. Out: a line a pair: `right`, `wrong` or `unparsed`. An alarm on CPU time has
no handler, so that the kernel ends the process wherever it computes; whoever started it starts another one.
`python -I math_worker.py CPU_S`; imports nothing of synthgen.
"""

import json
import logging
import re
import signal
import sys

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

__all__ = ["compare", "main"]

_BOXED = re.compile(r"(?s).*(\\boxed\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})")
_MARKED = re.compile(r"(?s).*####[ \t]*([^\n]+)")


def _final(text: str) -> str:
    """The part that states the answer, where the text marks one."""
    found = _BOXED.match(text) or _MARKED.match(text)
    return found[1] if found else text


def compare(reference: str, answer: str) -> str:
    """One verdict. What cannot be read is never right."""
    kinds = (LatexExtractionConfig(), ExprExtractionConfig())
    gold = parse(_as_math(_final(reference)), kinds, parsing_timeout=None)  # type: ignore[arg-type]  # None is documented: no alarm
    said = parse(_final(answer), kinds, parsing_timeout=None)  # type: ignore[arg-type]  # None is documented: no alarm
    if not gold or not said:
        return "unparsed"
    return "right" if verify(gold, said, timeout_seconds=None) else "wrong"


def _as_math(reference: str) -> str:
    """A reference is all mathematics; bare LaTeX needs its dollars to be read as such."""
    return reference if "$" in reference or "\\boxed" in reference else f"${reference}$"


def main(cpu_s: float) -> None:
    """Serve until stdin ends."""
    logging.disable(logging.CRITICAL)  # it reports every text it cannot read
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        try:
            verdict = compare(*json.loads(line))
        except Exception:  # a parser of free text raises anything
            verdict = "unparsed"
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(verdict, flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
