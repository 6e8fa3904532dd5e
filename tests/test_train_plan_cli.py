"""`synthgen train plan` from the command line."""

from pathlib import Path

import orjson
import pytest

from synthgen.cli.train import _span, plan
from tests.chat_templates import tokenizer
from tests.tiny_models import tiny_llama


def test_a_plan_says_that_it_is_estimated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chat = tokenizer("chatml")
    base = tmp_path / "base"
    tiny_llama(len(chat), max_position_embeddings=1024).save_pretrained(base)
    chat.save_pretrained(base)
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    (tmp_path / "rows.jsonl").write_bytes(orjson.dumps({"messages": turns}) + b"\n")

    plan(tmp_path / "rows.jsonl", base=str(base), as_json=True)

    shown = orjson.loads(capsys.readouterr().out)
    assert shown["estimated"] is True
    assert (shown["examples"], shown["steps"]) == (1, 3)
    assert shown["total_bytes"] > 0


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 s"), (42, "42 s"), (600, "10 min"), (5300, "88 min"), (5400, "1.5 h"), (4e6, "1,111.1 h")],
)
def test_a_time_has_the_unit_in_which_it_is_a_number(seconds: float, said: str) -> None:
    assert _span(seconds) == said
