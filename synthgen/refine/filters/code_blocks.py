"""Where in an answer its Python program stands.

In: the text of an answer. Out: its Python blocks, in order. Guarantee: fences are read as CommonMark has them (backticks or
tildes, any length, any info string, either line end, indented in lists, open at the end of the text); a fence that names another
language is no Python. A text without fences is one block, unless no line of it could be a statement.
Rejected: cutting a program out of prose without fences. Where it ends is a guess, and a wrong guess passes or fails for nothing.
"""

import re
from textwrap import dedent

__all__ = ["python_blocks"]

_OPENS = re.compile(r"^[ \t]*(?:(?:[-*+]|\d+[.)])[ \t]+)?(?P<sign>`{3,}|~{3,})(?P<info>[^\n]*)$")
_PYTHON = re.compile(r"(?i)(?:python|py)?[\d.]*")
# A line that is a statement: nobody begins a line of prose so.
_STATEMENT = re.compile(
    r"""(?mx)^[ \t]*(?:
    (?:async[ ]+)?def[ ]+\w+ | class[ ]+\w+[ ]*[:(] | @\w
    | import[ ]+[\w.]+(?:[ ]+as[ ]+\w+)?[ ]*(?:,.*)?$ | from[ ]+[\w.]+[ ]+import\b
    | [\w.\[\]'"]+(?:[ ]*,[ ]*[\w.\[\]'"]+)*[ ]*(?::[^=\n]+)?(?:[-+*/|&^%@]|//|\*\*|<<|>>)?=(?!=)
    | [\w.]+\(
    | [\[({].*\w\(
    | (?:if|elif|else|for|while|try|except|finally|with)\b[^\n]*:[ \t]*(?:\#.*)?$
    )"""
)


def python_blocks(answer: str) -> list[str]:
    """The program's blocks; none where the answer holds no Python."""
    lines = answer.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    blocks: list[tuple[str, str]] = []
    place = 0
    while place < len(lines):
        opened = _OPENS.match(lines[place])
        place += 1
        # An info string of backticks holds none, or ```this``` would open one.
        if opened is None or (opened["sign"][0] == "`" and "`" in opened["info"]):
            continue
        sign = re.escape(opened["sign"][0])
        closes = re.compile(rf"^[ \t]*{sign}{{{len(opened['sign'])},}}[ \t]*$")
        start = place
        while place < len(lines) and not closes.match(lines[place]):
            place += 1
        blocks.append((_language(opened["info"]), dedent("\n".join(lines[start:place]))))
        place += 1
    if not blocks:
        return ["\n".join(lines)] if _STATEMENT.search("\n".join(lines)) else []
    return [block for language, block in blocks if _PYTHON.fullmatch(language) and block.strip()]


def _language(info: str) -> str:
    """The first word of an info string: `Python title=x`, `{python}`, `{.python .numberLines}`, `python:main.py`."""
    return re.split(r"[\s,:}]", info.strip().lstrip("{").lstrip("."), maxsplit=1)[0]
