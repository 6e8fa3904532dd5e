"""Request keys: pinned for good; what changes an answer changes the key, what does not, does not.

If a golden key below changes, every journal in the world is bought again: raise `KEY_VERSION` on purpose, or
undo the change.
"""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.pipeline.resolve import resolve
from synthgen.recipe.load import load_recipe
from synthgen.types import Message, Request, Sampling, TeacherIdentity, ToolCall

TEACHER = TeacherIdentity("openai", "openai-api", "https://api.openai.com/v1", "gpt-x")
PLAIN = Request((Message("user", "Name a colour."),), TEACHER, Sampling(temperature=0.7, max_tokens=64))
GOLDEN = {
    "plain": (PLAIN, "c3748931367cc7a54451602ec055da75"),
    "bare": (Request((Message("user", ""),), TEACHER, Sampling()), "fbdd6671c64b0a7a6a7234c0224506a0"),
    "unicode": (
        replace(PLAIN, messages=(Message("system", "Sé breve. ½"), Message("user", "😀\n"))),
        "c7140ca5db83a4fc49d696437ec1a767",
    ),
    "everything": (
        Request(
            messages=(
                Message("user", "Look it up."),
                Message("assistant", "", reasoning="hm", tool_calls=(ToolCall("c1", "look", '{"q":1}'),)),
                Message("tool", "42", tool_call_id="c1", name="look"),
            ),
            teacher=TeacherIdentity("vllm", "self-hosted", "farm", "qwen3", "abc123"),
            sampling=Sampling(0.5, 0.9, 20, 0.1, 256, ("END",), 7, 0.1, 0.2, 1.1, {"min_tokens": 3}),
            tools='[{"name":"look"}]',
            response_schema='{"type":"object"}',
            capture=("reasoning",),
            sample=3,
            occurrence="2",
        ),
        "b80eddf30416082a2f04ed01fb7dbdd4",
    ),
    "follow-up": (
        replace(PLAIN, sample=1, occurrence="00112233445566778899aabbccddeeff:0"),
        "aef965a308eb36109404699ffe09811e",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_keys_are_pinned_for_ever(name: str) -> None:
    request, key = GOLDEN[name]

    assert request.key() == key


CHANGES = {
    "prompt text": replace(PLAIN, messages=(Message("user", "Name a colour!"),)),
    "role": replace(PLAIN, messages=(Message("system", "Name a colour."),)),
    "one more message": replace(PLAIN, messages=(*PLAIN.messages, Message("assistant", "Blue"))),
    "temperature": replace(PLAIN, sampling=Sampling(temperature=0.8, max_tokens=64)),
    "max_tokens": replace(PLAIN, sampling=Sampling(temperature=0.7, max_tokens=65)),
    "stop": replace(PLAIN, sampling=Sampling(temperature=0.7, max_tokens=64, stop=("a",))),
    "seed": replace(PLAIN, sampling=Sampling(temperature=0.7, max_tokens=64, seed=0)),
    "extra": replace(PLAIN, sampling=Sampling(temperature=0.7, max_tokens=64, extra={"a": 1})),
    "provider": replace(PLAIN, teacher=replace(TEACHER, provider="vllm")),
    "route": replace(PLAIN, teacher=replace(TEACHER, route="azure")),
    "pool": replace(PLAIN, teacher=replace(TEACHER, pool="farm")),
    "model": replace(PLAIN, teacher=replace(TEACHER, model="gpt-y")),
    "revision": replace(PLAIN, teacher=replace(TEACHER, revision="1")),
    "schema": replace(PLAIN, response_schema="{}"),
    "tools": replace(PLAIN, tools="[]"),
    "capture": replace(PLAIN, capture=("reasoning",)),
    "sample": replace(PLAIN, sample=1),
    "occurrence": replace(PLAIN, occurrence="1"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changes_the_answer_changes_the_key(what: str) -> None:
    assert CHANGES[what].key() != PLAIN.key()


def test_the_order_of_extra_fields_does_not_matter() -> None:
    one, other = Sampling(extra={"a": 1, "b": 2}), Sampling(extra={"b": 2, "a": 1})

    assert replace(PLAIN, sampling=one).key() == replace(PLAIN, sampling=other).key()


@given(parts=st.lists(st.text(alphabet="ab \n", max_size=3), min_size=1, max_size=4), cut=st.integers(1, 3))
def test_the_border_between_messages_counts(parts: list[str], cut: int) -> None:
    apart = replace(PLAIN, messages=tuple(Message("user", part) for part in parts))
    joined = replace(PLAIN, messages=(*apart.messages[:-cut], Message("user", "".join(parts[-cut:]))))

    assert (apart.key() == joined.key()) == (apart.messages == joined.messages)


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_the_token_bound_counts_bytes_and_frames(text: str) -> None:
    assert replace(PLAIN, messages=(Message("user", text),)).input_tokens_bound() == len(text.encode()) + 16


def test_the_token_bound_counts_everything_that_is_sent() -> None:
    request, _ = GOLDEN["everything"]
    sent = [
        "Look it up.",
        "hm",
        "c1",
        "look",
        '{"q":1}',
        "42",
        "look",
        '[{"name":"look"}]',
        '{"type":"object"}',
    ]

    assert request.input_tokens_bound() == sum(map(len, sent)) + 3 * 16


# At the level of a recipe


RECIPE = """\
name: keys
use: research
source: {inline: [{instruction: Name a colour.}]}
teachers:
  big:
    provider: vllm
    base_url: http://127.0.0.1:8000/v1
    route: self-hosted
    hf: Qwen/Qwen3-8B@abc123
    model: qwen3
    pool: farm
    price: {input: 1, output: 2}
    limits: {rpm: 60}
    sampling: {temperature: 0.7}
steps:
  - {name: label, prompt: answer, teacher: big}
"""


def first_key(folder: Path, **changes: str) -> str:
    """Key of the one request of the recipe, after replacing texts in it (`_` in the name: the text's nickname)."""
    text = RECIPE
    for old, new in changes.items():
        assert OLD[old] in text
        text = text.replace(OLD[old], new)
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    loaded = load_recipe(path)
    resolved = resolve(loaded)
    (spec,) = resolved.specs.values()
    return Request((Message("user", "x"),), spec.identity, resolved.tree.steps[0].sampling[spec.alias]).key()


OLD = {
    "alias": "big",
    "price": "price: {input: 1, output: 2}",
    "limits": "limits: {rpm: 60}",
    "base_url": "http://127.0.0.1:8000/v1",
    "pool": "pool: farm",
    "model": "model: qwen3",
    "revision": "@abc123",
    "sampling": "temperature: 0.7",
    "route": "route: self-hosted",
}


@pytest.mark.parametrize(
    ("what", "new"),
    [
        ("alias", "huge"),
        ("price", "price: {input: 9, output: 9}"),
        ("limits", "limits: {rpm: 5, tpm: 1000, concurrency: 3}"),
        ("limits", "transport: sdk"),
        ("limits", "timeout_s: 5"),
        ("limits", "give_up_after_s: 5"),
        ("limits", "served_as: [other]"),
        ("base_url", "http://127.0.0.2:9000/v1"),
    ],
)
def test_how_a_teacher_is_reached_and_paid_does_not_change_the_key(
    tmp_path: Path, what: str, new: str
) -> None:
    assert first_key(tmp_path, **{what: new}) == first_key(tmp_path)


@pytest.mark.parametrize(
    ("what", "new"),
    [
        ("pool", "pool: other"),
        ("model", "model: qwen4"),
        ("revision", "@def456"),
        ("revision", ""),
        ("sampling", "temperature: 0.8"),
        ("route", "route: openrouter"),
    ],
)
def test_who_answers_and_how_changes_the_key(tmp_path: Path, what: str, new: str) -> None:
    assert first_key(tmp_path, **{what: new}) != first_key(tmp_path)


def test_outside_a_pool_the_base_url_counts(tmp_path: Path) -> None:
    here = first_key(tmp_path, pool="timeout_s: 5")
    there = first_key(tmp_path, pool="timeout_s: 5", base_url="http://127.0.0.2:9000/v1")

    assert here != there


def test_two_spellings_of_a_base_url_are_one(tmp_path: Path) -> None:
    one = first_key(tmp_path, pool="timeout_s: 5")
    other = first_key(tmp_path, pool="timeout_s: 5", base_url="HTTP://127.0.0.1:8000/")

    assert one == other


def test_a_whole_number_is_the_same_temperature(tmp_path: Path) -> None:
    assert first_key(tmp_path, sampling="temperature: 1") == first_key(tmp_path, sampling="temperature: 1.0")
