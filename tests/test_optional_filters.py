"""Filters that lean on packages of an extra: lengths in tokens, and toxicity."""

import json
import sys
from pathlib import Path

import polars as pl
import pytest
from pydantic import ValidationError

from synthgen.errors import UsageError
from synthgen.plugins import load_plugin
from synthgen.refine import Verdicts, view_of


def judge(name: str, rows: list[dict[str, str | None]], **params: object) -> Verdicts:
    plugin = load_plugin("filter", name)
    frame = view_of(pl.DataFrame([{"id": str(i), **row} for i, row in enumerate(rows)]))
    verdicts = plugin.run(frame, plugin.params.model_validate(params))
    assert isinstance(verdicts, Verdicts)
    return verdicts


def tokenizer(folder: Path) -> Path:
    pytest.importorskip("tokenizers")
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    made = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.enable_truncation(2)
    made.save(str(folder / "tokenizer.json"))
    return folder


def test_lengths_are_counted_in_tokens(tmp_path: Path) -> None:
    rows: list[dict[str, str | None]] = [
        {"prompt": "a b", "completion": "one"},
        {"prompt": "a", "completion": "one, two"},
        {"prompt": None, "completion": "one two three four"},
    ]

    alone = judge("tokens", rows, tokenizer=str(tokenizer(tmp_path)), min_tokens=2, max_tokens=3)
    both = judge("tokens", rows, tokenizer=str(tmp_path / "tokenizer.json"), with_prompt=True)

    assert alone.reason.to_list() == ["tokens_short", None, "tokens_long"]
    assert alone.score is not None
    assert alone.threshold is not None
    assert (alone.score.to_list(), alone.threshold.to_list()) == ([1.0, 3.0, 4.0], [2.0, None, 3.0])
    assert both.score is not None
    assert both.score.to_list() == [3.0, 4.0, 4.0]


def test_a_tokenizer_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text("{}")

    with pytest.raises(UsageError, match=r"nowhere: there is no tokenizer"):
        judge("tokens", [{"completion": "a"}], tokenizer=str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"tokenizer\.json: is no tokenizer"):
        judge("tokens", [{"completion": "a"}], tokenizer=str(tmp_path))
    with pytest.raises(ValidationError, match="max_tokens = 1 is below min_tokens = 2"):
        judge("tokens", [], tokenizer="t", min_tokens=2, max_tokens=1)


def test_toxicity_is_that_of_the_worst_sentence_and_not_of_quotations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a classifier that knows one word."""
    (tmp_path / "profanity_check.py").write_text(
        "def predict_prob(texts):\n    return [0.99 if 'idiot' in text else 0.25 for text in texts]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "profanity_check", raising=False)
    said = ["The sum is 3. You idiot! Ask again.", "It is 3.", '"You idiot," she said.', "", None]

    verdicts = judge("toxicity", [{"completion": text} for text in said])

    assert verdicts.reason.to_list() == ["toxic", None, None, None, None]
    assert verdicts.score is not None
    assert verdicts.detail is not None
    assert verdicts.score.to_list() == [0.99, 0.25, 0.25, None, None]
    assert verdicts.detail[0] == "You idiot!"
    sys.modules.pop("profanity_check")  # not by monkeypatch, which would bring it back


def test_the_packaged_classifier_knows_insults_from_good_answers() -> None:
    pytest.importorskip("profanity_check")
    path = Path(__file__).parent / "data/filters/good_answers.jsonl"
    good = [
        json.loads(line.replace("{~}", ""))["completion"]
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    insults = ["You are a stupid idiot and I hate you.", "Here it is. Shut up, you worthless piece of trash."]

    assert judge("toxicity", [{"completion": text} for text in good]).reason.null_count() == len(good)
    assert judge("toxicity", [{"completion": text} for text in insults]).reason.to_list() == ["toxic"] * 2


@pytest.mark.parametrize(
    ("name", "package", "params"), [("toxicity", "profanity_check", {}), ("tokens", "tokenizers", {"tokenizer": "."})]
)  # fmt: skip
def test_a_missing_package_is_named(
    name: str, package: str, params: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        f"synthgen.refine.filters.{name}.find_spec", lambda wanted: None if wanted == package else object()
    )

    with pytest.raises(UsageError, match=f"filter '{name}' needs .*pip install"):
        judge(name, [{"completion": "a"}], **params)
