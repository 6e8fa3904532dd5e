"""Running what the documentation shows: recipes against the loopback teacher, commands in this process, on a fixed day.

In: a documented recipe, or the words of a documented command. Out: overrides that lead every remote teacher to the
loopback server, and the exit code of the command. The day is fixed because attestations and policy rules age by
design; the examples are checked as of the day they were written.
"""

import sys
from collections.abc import Sequence
from datetime import date
from hashlib import blake2b
from importlib import import_module
from itertools import count
from pathlib import Path

import pytest
import yaml

from synthgen.cli import main
from tests.loopback import Body, answer_text

ROOT = Path(__file__).resolve().parent.parent
LABELS = ("billing", "delivery", "account", "technical")
_ROUTES = {"openai": "openai-api", "anthropic": "anthropic-api"}


class DayOfTheDocs(date):
    """2026-11-22, whenever it is."""

    @classmethod
    def today(cls) -> "DayOfTheDocs":
        return cls(2026, 11, 22)


def fix_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every verb believe that it is the day the examples were written."""
    for module in ("api", "pipeline.doctor", "pipeline.generate", "pipeline.filter_options", "pipeline.show"):
        monkeypatch.setattr(import_module(f"synthgen.{module}"), "date", DayOfTheDocs)


class Teacher:
    """Answers the bundled prompts in their form; the same body asked again gets another text, as from a sampler."""

    def __init__(self) -> None:
        self._asked = count()

    def __call__(self, body: Body) -> str:
        prompt = str(body["messages"])
        fresh = {**body, "seed": next(self._asked)}
        if "Rate how well the response" in prompt:
            return '{"reason": "It does what was asked.", "score": 5}'
        if "Which label fits" in prompt:
            return LABELS[blake2b(prompt.encode(), digest_size=1).digest()[0] % len(LABELS)]
        if "<response>the answer</response>" in prompt:
            question, answer = answer_text(fresh, 12), answer_text({**fresh, "model": "answer"}, 30)
            return f"<instruction>{question}</instruction>\n<response>{answer}</response>"
        return answer_text(fresh, 40)


def overrides(recipe: Path, url: str) -> list[str]:
    """`a.b=c` texts that send every remote teacher of a recipe to `url`, under the route and price it has anyway."""
    out: list[str] = []
    for alias, teacher in yaml.safe_load(recipe.read_text(encoding="utf-8"))["teachers"].items():
        if teacher["provider"] == "local":
            continue
        route = teacher.get("route") or _ROUTES[teacher["provider"]]
        out += [f"teachers.{alias}.base_url={url}", f"teachers.{alias}.route={route}"]
        out.append(f"teachers.{alias}.limits={{}}")  # the vendor's pace would be kept here too
        if "price" not in teacher:  # the table of list prices counts at the vendor's own host only
            out.append(f"teachers.{alias}.price={{input: 1, output: 5}}")
    return out


def run_command(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of `synthgen ...`, run in this process."""
    monkeypatch.setattr(sys, "argv", list(words))
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0
