"""Captured logprobs: read from both forms servers send, checked, stored, published, and never at the answer's cost."""

import json
import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.asking.outcome import Answer, HttpReply
from synthgen.asking.wire.openai_chat import OpenAIChatWire
from synthgen.journal import Circumstances, answer_entry, read_logprobs
from synthgen.journal.lines import decode, encode
from synthgen.schema import logprobs_schema
from synthgen.types import Completion, Logprobs, Message, Request, Sampling, TeacherIdentity
from tests.loopback import Loopback, token_id, tokens_of
from tests.runs import cli, recipe, records, save, teacher

REQUEST = Request(
    (Message("user", "Name a capital."),),
    TeacherIdentity("openai", "openai-api", "https://api.openai.com/v1", "m"),
    Sampling(),
    capture=("logprobs:2",),
)
WIRE = OpenAIChatWire()
VLLM = OpenAIChatWire(token_ids=True)


def entry(token: str, logprob: float, *top: tuple[str, float], raw: bytes | None = None) -> dict[str, Any]:
    named = [{"token": text, "logprob": value, "bytes": list(text.encode())} for text, value in top]
    spelled = list(token.encode() if raw is None else raw)
    return {"token": token, "logprob": logprob, "bytes": spelled, "top_logprobs": named}


PARIS = [
    entry("Par", -0.1, ("Par", -0.1), ("Rome", -3.0)),
    entry("is", -0.01, ("is", -0.01), ("ma", -5.0)),
]
# As vLLM 0.32 sends them with `return_tokens_as_token_ids`, the second token out of rank.
PARIS_IDS = [
    entry("token_id:7", -0.1, ("token_id:7", -0.1), ("token_id:9", -3.0), raw=b"Par"),
    entry("token_id:8", -5.0, ("token_id:8", -5.0), ("token_id:4", -0.01), raw=b"is"),
]


def read(content: object, text: str = "Paris", tokens: int = 2, **choice: object) -> Completion:
    payload = {
        "model": "m",
        "choices": [
            {
                "message": {"content": text},
                "finish_reason": "stop",
                "logprobs": {"content": content},
                **choice,
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": tokens},
    }
    outcome = WIRE.read(HttpReply(200, {}, json.dumps(payload).encode()), REQUEST)
    assert isinstance(outcome, Answer)
    return outcome.completion


def captured(content: object, text: str = "Paris", **choice: object) -> Logprobs:
    logprobs = read(content, text, **choice).logprobs
    assert logprobs is not None
    return logprobs


# Asking


def test_a_capture_is_asked_for_in_the_vendors_fields() -> None:
    body = WIRE.body(REQUEST)

    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
    assert "return_token_ids" not in body


def test_vllm_is_asked_for_token_ids_as_well() -> None:
    body = VLLM.body(REQUEST)

    assert body["return_token_ids"] is body["return_tokens_as_token_ids"] is True


@pytest.mark.parametrize("wire", [WIRE, VLLM])
def test_without_a_capture_nothing_is_asked_for(wire: OpenAIChatWire) -> None:
    assert set(wire.body(replace(REQUEST, capture=()))) == {"model", "messages"}


# Reading


def test_tokens_as_text_are_read() -> None:
    logprobs = captured(PARIS)

    assert logprobs.tokens == ("Par", "is")
    assert logprobs.top_tokens == (("Par", "Rome"), ("is", "ma"))
    assert logprobs.top_logprobs == ((-0.1, -3.0), (-0.01, -5.0))
    assert not logprobs.ids_complete


def test_tokens_as_ids_are_read_with_the_text_of_the_generated_ones() -> None:
    logprobs = captured(PARIS_IDS)

    assert (logprobs.tokens, logprobs.ids) == (("Par", "is"), (7, 8))
    assert logprobs.top_ids == ((7, 9), (4, 8))
    assert logprobs.top_tokens == ((None, None), (None, None))
    assert logprobs.ids_complete


def test_ids_beside_the_choice_serve_where_tokens_are_text() -> None:
    logprobs = captured(PARIS, token_ids=[7, 8])

    assert logprobs.ids == (7, 8)
    assert not logprobs.ids_complete  # those of the alternatives are not known


def test_alternatives_are_sorted_since_vllm_puts_the_generated_token_first() -> None:
    assert captured(PARIS_IDS).top_logprobs[1] == (-0.01, -5.0)


def test_half_a_character_keeps_its_bytes() -> None:
    content = [entry("\\xe2\\x82", -0.1, raw=b"\xe2\x82"), entry("\\xac", -0.1, raw=b"\xac")]
    for one in content:
        one["top_logprobs"] = [{k: one[k] for k in ("token", "logprob", "bytes")}]

    assert captured(content, "€").token_bytes == (b"\xe2\x82", b"\xac")


def test_the_first_parts_of_a_character_have_no_bytes_in_vllm() -> None:
    content = [
        entry("token_id:5", -0.1, ("token_id:5", -0.1), raw=b""),
        entry("token_id:6", -0.1, ("token_id:6", -0.1), raw="€".encode()),
    ]

    assert captured(content, "€").tokens == ("", "€")


def test_rounding_just_above_zero_is_zero() -> None:
    assert captured([entry("Paris", 2e-7, ("Paris", 2e-7))]).logprobs == (0.0,)


def test_tokens_without_spaces_around_them_still_cover_the_answer() -> None:
    content = [entry("Paris", -0.1, ("Paris", -0.1)), entry("now", -0.1, ("now", -0.1))]

    assert len(captured(content, "Paris now")) == 2


# Refusing


def changed(change: Callable[[list[dict[str, Any]]], object]) -> list[dict[str, Any]]:
    content = deepcopy(PARIS)
    change(content)
    return content


REFUSED: dict[str, tuple[str, Callable[[list[dict[str, Any]]], object]]] = {
    "placeholder of the token": ("placeholder", lambda c: c[0].update(logprob=-9999.0)),
    "placeholder of an alternative": ("placeholder", lambda c: c[0]["top_logprobs"][1].update(logprob=-9999)),
    "not a number": ("number", lambda c: c[0].update(logprob=None)),
    "above zero": ("positive", lambda c: c[0].update(logprob=0.5)),
    "more than everything": ("sum", lambda c: c[0]["top_logprobs"][1].update(logprob=-0.5)),
    "two values for one token": ("chosen", lambda c: c[0].update(logprob=-0.4)),
    "no alternatives": ("top", lambda c: c[0].update(top_logprobs=[])),
    "too many alternatives": ("top", lambda c: c[0]["top_logprobs"].extend(c[1]["top_logprobs"])),
    "more entries than tokens": ("length", lambda c: c.append(c[1])),
    "another text": ("text", lambda c: c[0].update(token="Ro", bytes=list(b"Ro"), top_logprobs=[])),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_capture_that_cannot_be_true_is_refused_and_the_answer_kept(why: str) -> None:
    reason, change = REFUSED[why]

    completion = read(changed(change))

    assert (completion.text, completion.logprobs) == ("Paris", None)
    assert completion.flags == (f"logprobs_invalid:{reason}",)


def test_what_a_schema_rules_out_is_left_out_of_the_alternatives() -> None:
    request = replace(REQUEST, response_schema="{}")
    content = changed(lambda c: c[0]["top_logprobs"][1].update(logprob=-9999.0))
    choice = {"message": {"content": "Paris"}, "finish_reason": "stop", "logprobs": {"content": content}}

    outcome = WIRE.read(HttpReply(200, {}, json.dumps({"choices": [choice]}).encode()), request)

    assert isinstance(outcome, Answer)
    assert outcome.completion.logprobs is not None
    assert outcome.completion.logprobs.top_tokens == (("Par",), ("is", "ma"))


def test_infinities_and_nan_are_refused() -> None:
    body = json.dumps({"content": PARIS}).replace("-0.1", "-Infinity")

    assert read(json.loads(body)["content"]).flags[0].startswith("logprobs_invalid:")


def test_ids_that_are_not_one_a_token_are_refused() -> None:
    assert read(PARIS, token_ids=[7]).flags == ("logprobs_invalid:length",)


def test_ids_that_disagree_are_refused() -> None:
    assert read(PARIS_IDS, token_ids=[7, 5]).flags == ("logprobs_invalid:ids",)


@pytest.mark.parametrize("content", [None, [], {}, "x"])
def test_a_server_that_ignores_the_request_leaves_a_flag(content: object) -> None:
    completion = read(content)

    assert (completion.text, completion.logprobs, completion.flags) == ("Paris", None, ("logprobs_missing",))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["token", "logprob", "bytes", "top_logprobs"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(content=JSON, ids=JSON)
def test_whatever_stands_in_their_place_the_answer_is_kept(content: Any, ids: Any) -> None:
    assert read(content, token_ids=ids).text == "Paris"


# Storing


def test_the_journal_gives_them_back_to_six_decimals() -> None:
    logprobs = captured(PARIS_IDS)
    completion = replace(read(PARIS_IDS), logprobs=logprobs)

    line = encode(answer_entry("00" * 16, completion, 0.0, Circumstances("s", "t", "e", 1, 0.0, 0.0)))
    stored = decode(line)
    assert stored is not None

    assert read_logprobs(stored) == logprobs


def test_an_answer_without_them_is_stored_as_ever() -> None:
    entry_ = answer_entry("00" * 16, Completion("x", "stop"), None, Circumstances("s", "t", "e", 1, 0.0, 0.0))

    assert {"logprobs", "flags"}.isdisjoint(entry_)
    assert read_logprobs(entry_) is None


# A run


def capturing(server: Loopback, k: int = 3, **changes: object) -> dict[str, Any]:
    step = {"name": "answer", "prompt": "answer", "teacher": "qwen", "capture": {"logprobs": k}}
    return recipe(server, 4, steps=[step], **changes)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    out = tmp_path / "run"
    with Loopback() as server:
        result = cli("generate", save(tmp_path / "r.yaml", capturing(server)), "-o", out)
    assert result.code == 0, result.err
    return out


def test_the_sidecar_holds_one_row_a_record_with_exact_ids(published: Path) -> None:
    rows = pl.read_parquet(published / "logprobs/*.parquet")
    texts = {record["id"]: record["messages"][-1]["content"] for record in records(published)}

    assert rows.schema == logprobs_schema()
    assert set(rows["id"]) == set(texts)
    for row in rows.iter_rows(named=True):
        assert row["tokens"] == tokens_of(texts[row["id"]])
        assert row["token_ids"] == [token_id(token) for token in row["tokens"]]
        assert [len(ids) for ids in row["top_ids"]] == [3] * len(row["tokens"])
        assert math.isclose(row["top_logprobs"][0][0], -0.5)
    assert rows["ids_complete"].all()
    assert set(rows["tokenizer"]) == {"Qwen/Qwen3-8B"}


def test_the_manifest_and_the_card_say_what_the_sidecar_is_good_for(published: Path) -> None:
    manifest = json.loads((published / "manifest.json").read_text())

    assert manifest["logprobs"] == {
        "replies": 4,
        "ids_complete": True,
        "tokenizers": ["Qwen/Qwen3-8B"],
        "served_models": ["qwen3"],
    }
    assert "logprobs/logprobs-00000-of-00001.parquet" in manifest["files"]
    assert "log-probabilities of each token" in (published / "README.md").read_text()


def test_other_readers_read_the_sidecar(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    file = str(next((published / "logprobs").iterdir()))
    first = pl.read_parquet(file).row(0, named=True)

    loaded = datasets.load_dataset("parquet", data_files=file, cache_dir=str(published.parent / "cache"))
    assert loaded["train"][0]["top_ids"] == first["top_ids"]
    assert pd.read_parquet(file)["token_ids"].iloc[0].tolist() == first["token_ids"]
    with duckdb.connect() as database:
        joined = database.execute(
            f"select count(*), min(len(logprobs)) from '{published}/data/*.parquet' join '{file}' using (id)"
        ).fetchone()
    assert joined == (4, min(map(len, pl.read_parquet(file)["tokens"])))


def test_a_recut_has_the_same_sidecar(published: Path, tmp_path: Path) -> None:
    result = cli("filter", published, "-o", tmp_path / "again")

    assert result.code == 0, result.err
    again, first = (pl.read_parquet(run / "logprobs/*.parquet") for run in (tmp_path / "again", published))
    assert again.equals(first)


def test_a_server_that_gives_none_is_counted_and_its_answers_kept(tmp_path: Path) -> None:
    with Loopback(ignores=["logprobs"]) as server:
        result = cli("generate", save(tmp_path / "r.yaml", capturing(server)), "-o", tmp_path / "o", "--json")

    assert result.json["flags"] == {"logprobs_missing": 4}
    assert [record["flags"] for record in records(tmp_path / "o")] == [["logprobs_missing"]] * 4
    manifest = json.loads((tmp_path / "o/manifest.json").read_text())
    assert (manifest["logprobs"], manifest["flags"]) == (None, {"logprobs_missing": 4})


def test_how_many_alternatives_belongs_to_the_key(tmp_path: Path) -> None:
    with Loopback() as server:
        for k, sent in ((3, 4), (3, 4), (5, 8)):
            assert (
                cli("generate", save(tmp_path / "r.yaml", capturing(server, k)), "-o", tmp_path / "o").code
                == 0
            )
            assert len(server.requests) == sent


@pytest.mark.parametrize(
    ("who", "said"),
    [
        (
            {"provider": "anthropic"},
            "(provider anthropic) gives no logprobs; use a `vllm` or `openai` teacher",
        ),
        ({"provider": "openai", "base_url": "https://api.openai.com"}, "21 is more than the 20 that teacher"),
    ],
)
def test_a_teacher_that_cannot_is_refused_before_anything_is_sent(
    tmp_path: Path, who: dict[str, str], said: str
) -> None:
    server = Loopback()
    teachers = {"qwen": teacher(server, **who)}

    result = cli("plan", save(tmp_path / "r.yaml", capturing(server, 21, teachers=teachers)))

    assert result.code == 2
    assert "r.yaml:" in result.err
    assert "steps[0].capture.logprobs" in result.err
    assert said in " ".join(result.err.split())


def test_the_embedded_teacher_is_refused_a_capture_at_plan_time(tmp_path: Path) -> None:
    step = {"name": "answer", "prompt": "answer", "teacher": "small", "capture": {"logprobs": 5}}
    made = recipe(
        Loopback(), 4, steps=[step], teachers={"small": {"provider": "local", "model": "smollm2-135m"}}
    )

    result = cli("plan", save(tmp_path / "r.yaml", made))

    assert result.code == 2
    assert "steps[0].capture.logprobs: teacher 'small' (provider local) gives no logprobs" in result.err
