"""Judges behind the loopback server whose every verdict a test can compute: scores stand in the answers they rate.

In: bodies of requests. Out: replies. An answer says `worth N`, its judges rate it N unless a test bends them.
"""

import json
import re
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from tests.loopback import Body, answer_text
from tests.runs import Recipe, recipe, teacher

SCORED, RUBRIC, COMPARED = (
    "Rate how well the response",
    "on four criteria",
    "Say which of them its asker should get",
)
CRITERIA = ("correctness", "completeness", "compliance", "clarity")


def text_of(body: Body) -> str:
    """The last message of a request."""
    messages: Any = body["messages"]
    return str(messages[-1]["content"])


def between(text: str, tag: str) -> str:
    """What stands in a tag of a prompt."""
    return text.split(f"<{tag}>\n", 1)[1].split(f"\n</{tag}>", 1)[0]


def worth(answer: str) -> int:
    """What an answer is worth, 1 to 5."""
    found = re.search(r"worth (\d)", answer)
    assert found is not None, answer
    return int(found[1])


def answered(body: Body) -> str:
    """An answer worth 1 to 5, by a hash of the request."""
    drawn = blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=2).digest()
    return f"{answer_text(body, 20)} worth {drawn[0] % 5 + 1}"


def prefers(first: int, second: int) -> str:
    """The answer that is worth more."""
    return "tie" if first == second else "A" if first > second else "B"


def classroom(
    *,
    score: Callable[[str], object] = worth,
    clarity: Callable[[str], object] | None = None,
    prefer: Callable[[int, int], str] = prefers,
) -> Callable[[Body], str]:
    """A server that answers, scores, scores by rubric and compares."""

    def reply(body: Body) -> str:
        text = text_of(body)
        if SCORED in text:
            return json.dumps({"reason": "Because.", "score": score(between(text, "response"))})
        if RUBRIC in text:
            response = between(text, "response")
            scores = dict.fromkeys(CRITERIA, score(response))
            scores |= {"clarity": clarity(response)} if clarity else {}
            return json.dumps({"reason": "So it is.", **scores})
        if COMPARED in text:
            shown = [worth(between(text, f"response_{side}")) for side in "ab"]
            return json.dumps({"reason": "It is worth more.", "better": prefer(*shown)})
        return answered(body)

    return reply


def judged(
    server: Any, judge: Recipe | None = None, *, rows: int = 12, samples: int = 1, **changes: Any
) -> Recipe:
    """A recipe with a writer and judges `one`, `two`, `three` of different models."""
    names = {"one": "Qwen/Qwen3-8B", "two": "Qwen/Qwen3-4B", "three": "Qwen/Qwen3-14B"}
    judges = {alias: teacher(server, model=f"judge-{alias}", hf=hf) for alias, hf in names.items()}
    refine = {"chain": "none", "dedup": {"near": None}, **({"judge": judge} if judge else {})}
    return recipe(
        server,
        rows,
        **{
            "teachers": {"qwen": teacher(server), **judges},
            "steps": [{"name": "answer", "prompt": "answer", "teacher": "qwen", "samples": samples}],
            "refine": {**refine, **changes.pop("refine", {})},
            **changes,
        },
    )
