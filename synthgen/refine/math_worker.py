"""Compares final answers, mathematics and letters of a multiple choice; a process of its own, because it may have to be killed.

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
from sympy import Expr, Float, Integer  # type: ignore[import-untyped]  # has no stubs

__all__ = ["compare", "main"]

_BOXED = re.compile(r"(?s).*(\\boxed\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})")
# A letter of a multiple choice, alone; before its text; and where a sentence calls it the answer.
_CHOICE = re.compile(r"\(?([A-J])[).]?")
_BEGINS = re.compile(r"[\s*_$(\[]*([A-J])(?:[\s*_$]*$|[*_$]*[)\].:]|\*\*)")
_NAMED = re.compile(
    r"(?i:answer|option|choice)(?i:\s+(?:is|was|would be|should be|must be))?\s*:?\s*(?i:option\s+|choice\s+)?"
    r"[\s*_$(\[]*([A-J])(?=[*_$)\].,;:\n]|\s*$)"
)
_COMMAND = re.compile(r"\\(?:[a-zA-Z]+|.)")
_FUNCTION = re.compile(
    r"\\(?:operatorname|mathrm)\*?\{[^{}]*\}|\b(?:arc(?:sin|cos|tan|cot|sec|csc)|infty|infinity)h?\b"
)
_UNIT = re.compile(r"(?:\\(?:text|mathrm)\{[^{}]*\}|[a-zA-Z]+)\s*\^\s*(?:\{\s*-?\d+\s*\}|-?\d)")
_APART = 1e-3  # 0.333333 and 1/3 are a millionth apart, rounded answers of four digits less than this
_MARKED = re.compile(r"(?s).*####[ \t]*([^\n]+)")


def _final(text: str) -> str:
    """The part that states the answer, where the text marks one."""
    return _marked(text) or text


def _marked(text: str) -> str | None:
    found = _BOXED.match(text) or _MARKED.match(text)
    return found[1] if found else None


def compare(reference: str, answer: str) -> str:
    """One verdict. What cannot be read is never right, and a reference in words is never proof that an answer is wrong."""
    wanted = _final(reference)
    choice, said_choice = _CHOICE.fullmatch(_unwrapped(wanted)), _choice(answer)
    if choice and said_choice:
        return "right" if choice[1] == said_choice else "wrong"
    if _in_words(wanted):
        said_last = _final(answer).strip().rpartition("\n")[2]
        return "right" if _plain(wanted) == _plain(said_last) else "unparsed"
    kinds = (LatexExtractionConfig(), ExprExtractionConfig())
    gold = parse(_as_math(wanted), kinds, parsing_timeout=None)  # type: ignore[arg-type]  # None is documented: no alarm
    said = parse(_final(answer), kinds, parsing_timeout=None)  # type: ignore[arg-type]  # None is documented: no alarm
    if not gold or not said:
        return "unparsed"
    if not verify(gold, said, timeout_seconds=None):
        return "unparsed" if choice else "wrong"  # no letter is no other letter
    # 50 % for 50 is right to math-verify, and usually to the question.
    return _confirmed(gold, said, exact="%" not in reference + answer)


def _confirmed(gold: list[object], said: list[object], *, exact: bool) -> str:
    """What math-verify 0.9 calls equal and is not (Math-Verify#14, #41): it compares to six decimals, so that all tiny
    numbers are one, and of a formula that it cannot read it takes the first number."""
    one, other = gold[0], said[0]
    if gold[-1] != said[-1] and (_is_part(one, gold[-1]) or _is_part(other, said[-1])):
        return "unparsed"
    if exact and isinstance(one, Expr) and isinstance(other, Expr) and one.is_number and other.is_number:
        first, second = one.doit().evalf(15), other.doit().evalf(15)
        apart, size = (abs(first - second).evalf(15), max(abs(first).evalf(15), abs(second).evalf(15)))
        if apart > _APART * size:
            return "wrong"
    return "right"


def _is_part(value: object, text: object) -> bool:
    """Whether more numbers than this one stand in the text it was read from, behind the last `=`."""
    if not isinstance(value, Integer | Float):
        return False
    whole = _UNIT.sub("", str(text).replace(",", "").rpartition("=")[2])
    number = f"{value}".rstrip("0").rstrip(".") if isinstance(value, Float) else str(value)
    return number in whole and any(map(str.isdigit, whole.replace(number, "", 1)))


def _choice(answer: str) -> str | None:
    """The letter an answer ends in: what is marked as final, else what is called the answer, else its last line."""
    marked = _marked(answer)
    if marked is not None:
        found = _BEGINS.match(_unwrapped(marked))
        return found[1] if found else None
    named = _NAMED.findall(answer)
    if named:
        return str(named[-1])
    last = _BEGINS.match(answer.strip().rpartition("\n")[2])
    return last[1] if last else None


def _unwrapped(text: str) -> str:
    """Without `\\boxed{}`, `\\text{}`, dollars, bold signs."""
    return _COMMAND.sub("", text).translate(str.maketrans("", "", "{}$*_\\")).strip()


def _in_words(reference: str) -> bool:
    """Words and no number: no text of which mathematics could be made, though math-verify multiplies its letters."""
    text = _COMMAND.sub(" ", _FUNCTION.sub(" ", reference))
    words = re.findall(r"[^\W\d_]{2,}", text)
    return not any(map(str.isdigit, reference)) and (len(words) > 2 or any(len(word) > 4 for word in words))


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", _unwrapped(text).casefold()))


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
