"""Lists as language models write them.

In: a reply without its thinking block. Out: its items. Read are a JSON array (alone, fenced, after an introduction, or
as the one array of an object), a numbered list, a bulleted list, else one item a line. An introduction before the first
mark and a farewell after the last item are left out; an item may run over several lines.
"""

import json
import re

__all__ = ["split_list"]

_FENCE = re.compile(r"\A```[^\n`]*\n(.*?)\n?```\s*\Z", re.DOTALL)
_ARRAY_START = re.compile(r"""^[ \t]*(?=\[\s*(?:["{]|\])|\{\s*["}])""", re.MULTILINE)
_NUMBERED = re.compile(
    r"^([ \t]*)\*{0,2}(?:\(?\d{1,3}[.):]|(?:question|task|instruction|topic|item|q) ?#?\d{1,3}[.):])\*{0,2}(?:[ \t]+|$)",
    re.IGNORECASE,
)
_BULLET = re.compile(r"^([ \t]*)[-*•–](?:[ \t]+|$)")
_QUOTES = {'"': '"', "“": "”"}


def split_list(text: str, *, key: str) -> list[str]:
    """Items of a list, without marks, blank ones left out; `key` names the text in items that are JSON objects.

    Raises:
        ValueError: the list is JSON, and broken or not of texts; the message quotes nothing.
    """
    fenced = _FENCE.match(text.strip())
    body = fenced[1] if fenced else text
    lines = body.splitlines()
    start = _ARRAY_START.search(body)
    # JSON below a mark belongs to an item ("1. What is wrong with this file?").
    if start and not any(
        _NUMBERED.match(line) or _BULLET.match(line) for line in body[: start.end()].splitlines()
    ):
        items = _json_items(body, start.end(), key)
    else:
        items = _marked(lines, _NUMBERED) or _marked(lines, _BULLET) or _one_a_line(lines)
    return [cleaned for item in items if (cleaned := _clean(item))]


def _json_items(text: str, start: int, key: str) -> list[str]:
    """Texts of the array at `start`, or of the one array in the object there."""
    try:
        value, _ = json.JSONDecoder(strict=False).raw_decode(text, start)
    except (ValueError, RecursionError):
        raise ValueError("the JSON list is broken or cut off") from None
    if isinstance(value, dict):
        arrays = [child for child in value.values() if isinstance(child, list)]
        if len(arrays) != 1:
            raise ValueError(f"the JSON object holds {len(arrays)} lists, not one")
        value = arrays[0]
    items = []
    for number, item in enumerate(value, 1):
        if isinstance(item, dict):
            item = item.get(key, next(iter(item.values())) if len(item) == 1 else None)
        if not isinstance(item, str):
            raise ValueError(f"item {number} of the JSON list is not text")
        items.append(item.encode(errors="replace").decode())  # half a surrogate pair cannot be stored
    return items


def _marked(lines: list[str], mark: re.Pattern[str]) -> list[str]:
    """Items that start with `mark` at its smallest indent; none if the list looks unmarked.

    One marked line among several plain ones is a line that happens to start like that, unless it is the first.
    """
    marks = {number: found for number, line in enumerate(lines) if (found := mark.match(line))}
    first_text = next((number for number, line in enumerate(lines) if line.strip()), -1)
    if len(marks) < 2 and first_text not in marks:
        return []
    indent = min(len(found[1].expandtabs()) for found in marks.values())
    starts = [number for number, found in marks.items() if len(found[1].expandtabs()) == indent]
    items = []
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        first = lines[start][marks[start].end() :]
        items.append([first, *(line.strip() if line.strip() else "" for line in lines[start + 1 : end])])
    if not any(map(_has_gap, items[:-1])):
        items[-1] = _until_farewell(items[-1], lines[starts[-1] + 1 :])
    return ["\n".join(item) for item in items]


def _has_gap(item: list[str]) -> bool:
    """Whether text follows a blank line inside the item."""
    return "\n\n" in "\n".join(item).strip()


def _until_farewell(item: list[str], raw: list[str]) -> list[str]:
    """The last item without what follows a blank line at the margin ("I hope this helps!")."""
    for number in range(1, len(raw)):
        if not raw[number - 1].strip() and raw[number].strip() and not raw[number][0].isspace():
            return item[: number + 1]
    return item


def _one_a_line(lines: list[str]) -> list[str]:
    found = [line for line in lines if line.strip()]
    introduced = len(found) > 1 and found[0].rstrip().endswith(":")
    return found[1:] if introduced else found


def _clean(item: str) -> str:
    """Without outer spaces, bold marks and quotes around the whole item."""
    text = item.strip()
    if text.count("**") == 1:  # the other one stood in the mark: **1. Title**
        text = text.replace("**", "")
    if text.startswith("**") and text.endswith("**") and text.count("**") == 2:
        text = text[2:-2]
    text = text.strip()
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    return text
