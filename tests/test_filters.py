"""Every built-in filter against its hand-written examples, and what all filters have in common."""

import json
import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.errors import RecipeError, UsageError
from synthgen.plugins import load_plugin, plugin_names
from synthgen.refine import RESULT, VIEW, Verdicts, load_chain, run_chain

EXAMPLES = Path(__file__).parent / "data" / "filters"
# Keys in the examples carry this mark in the middle, so that no scanner takes this repository for a leak.
MARK = "{~}"
FILTERS = sorted(path.stem for path in EXAMPLES.glob("*.jsonl") if path.stem != "good_answers")


# Filters that nothing can be said of without parameters, and those whose examples stand in a test of their own:
# one compares rows, one starts a process for each frame, two need what an extra installs.
NEEDED: dict[str, dict[str, object]] = {
    "flagged_words": {"words": ["darn", "heck", "bloody"], "max_share": 0.1},
    "one_of": {"labels": ["billing", "bug", "other"]},
    "sections": {"required": ["Summary", "Steps"]},
    "score": {"of": "quality", "keep": ">= 3"},
}
ELSEWHERE = ["consistency", "math_answer", "tokens", "toxicity"]
IN_DEFAULT = sorted({step.filter for step in load_chain("sft_default").steps})


def rows(name: str) -> list[dict[str, object]]:
    lines = (EXAMPLES / f"{name}.jsonl").read_text(encoding="utf-8").replace(MARK, "").splitlines()
    return [json.loads(line) for line in lines]


def view(*given: dict[str, object]) -> pl.DataFrame:
    filled = [
        {"id": str(i), **{name: row.get(name) for name in VIEW if name != "id"}}
        for i, row in enumerate(given)
    ]
    return pl.DataFrame(filled, schema=VIEW)


def judge(name: str, frame: pl.DataFrame, params: object = None) -> Verdicts:
    plugin = load_plugin("filter", name)
    verdicts = plugin.run(frame, plugin.params.model_validate(params or NEEDED.get(name, {})))
    assert isinstance(verdicts, Verdicts)
    return verdicts


def examples(*, good: bool) -> list[pytest.param]:
    return [
        pytest.param(name, row, id=f"{name}-{place}-{row['reason'] or 'keep'}")
        for name in FILTERS
        for place, row in enumerate(rows(name), 1)
        if (row["reason"] is None) == good
    ]


def test_every_built_in_filter_has_examples() -> None:
    assert plugin_names("filter") == sorted([*FILTERS, *ELSEWHERE])


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_has_ten_good_and_ten_bad_examples(name: str) -> None:
    reasons = [row["reason"] for row in rows(name)]

    assert reasons.count(None) >= 10
    assert len(reasons) - reasons.count(None) >= 10


@pytest.mark.parametrize(("name", "row"), examples(good=True))
def test_good_example_is_kept(name: str, row: dict[str, object]) -> None:
    verdicts = judge(name, view(row), row.get("params"))

    assert verdicts.reason.to_list() == [None]


@pytest.mark.parametrize(("name", "row"), examples(good=False))
def test_bad_example_is_rejected_with_its_reason(name: str, row: dict[str, object]) -> None:
    verdicts = judge(name, view(row), row.get("params"))

    assert verdicts.reason.to_list() == [row["reason"]]


@pytest.mark.parametrize("name", FILTERS)
def test_a_row_is_judged_alike_alone_and_among_others(name: str) -> None:
    plain = [row for row in rows(name) if "params" not in row]

    together = judge(name, view(*plain)).reason.to_list()

    assert together == [judge(name, view(row)).reason[0] for row in plain]


@pytest.mark.parametrize("name", FILTERS)
def test_an_empty_frame_gives_empty_verdicts(name: str) -> None:
    verdicts = judge(name, VIEW.to_frame())

    assert verdicts.reason.to_list() == []
    assert verdicts.reason.dtype == pl.String


@pytest.mark.parametrize("name", FILTERS)
def test_a_row_of_nulls_gives_one_verdict(name: str) -> None:
    verdicts = judge(name, view({}))

    assert len(verdicts.reason) == 1


odd_text = st.one_of(
    st.none(),
    st.text(max_size=200),
    st.text(alphabet="`~|$\\<>[]{}\"'“”«»「」-—*#.!?0123456789@:+ \n\t", max_size=200),
    st.sampled_from(
        [
            "\x00\x01",
            "\u202e\u200b\ufeff",
            "e\u0301\u0323" * 40,
            "👩\u200d👩\u200d👧" * 30,
            "\U0010ffff",
            "ı İ ß ς",
        ]
    ),
)


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(
        st.tuples(odd_text, odd_text, st.sampled_from([None, "stop", "new"]), odd_text), max_size=6
    )
)
@pytest.mark.parametrize("name", FILTERS)
def test_odd_unicode_gives_aligned_verdicts_and_the_same_ones_twice(
    name: str, texts: list[tuple[str | None, str | None, str | None, str | None]]
) -> None:
    keys = ("prompt", "completion", "finish_reason", "response_schema")
    frame = view(*[dict(zip(keys, text, strict=True)) for text in texts])

    first, second = judge(name, frame), judge(name, frame)

    assert len(first.reason) == frame.height
    assert first.reason.dtype == pl.String
    assert first.reason.to_list() == second.reason.to_list()
    if first.score is not None:
        assert first.score.dtype == pl.Float64
        assert first.score.to_list() == second.score.to_list()


def test_scores_of_repetition_are_shares() -> None:
    verdicts = judge("repetition", view(*rows("repetition")))

    assert verdicts.score is not None
    shares = [
        score
        for score, reason in zip(verdicts.score, verdicts.reason, strict=True)
        if reason != "repeated_chars"
    ]
    assert shares
    assert all(0 <= score <= 1 for score in shares)


@pytest.mark.parametrize(
    "text", ["Words, and (more) words!", "\x1c\x1d tab\tand\x0bline\r\n", "a1_b2-c3 ~~~ ..."]
)
def test_letters_are_counted_alike_in_ascii_and_in_other_text(text: str) -> None:
    verdicts = judge("symbols", view({"completion": text}, {"completion": f"{text}é"}), {"min_chars": 1})

    solid, letters = len(re.findall(r"[^\t-\r ]", text)), len(re.findall(r"[A-Za-z0-9]", text))
    assert verdicts.score is not None
    assert verdicts.score.to_list() == pytest.approx([letters / solid, (letters + 1) / (solid + 1)])


def test_pii_kinds_choose_what_rejects() -> None:
    row = {"completion": "Write to lena.brandt84@gmx.net or call 415-863-2297."}

    assert judge("pii", view(row), {"kinds": ["phone"]}).reason.to_list() == ["pii_phone"]
    assert judge("pii", view(row), {"kinds": ["iban"]}).reason.to_list() == [None]


def test_personal_data_of_no_kind_is_kept() -> None:
    row = {"completion": "Call 212-664-7665."}

    assert judge("pii", view(row), {"kinds": []}).reason.to_list() == [None]


def test_a_secret_is_not_repeated_in_its_verdict() -> None:
    verdicts = judge("secrets", view(*rows("secrets")))

    assert verdicts.detail is None


# --- chains ---------------------------------------------------------------------------------------------------


def test_good_answers_pass_the_default_chain() -> None:
    good = rows("good_answers")

    judged = run_chain(load_chain("sft_default"), view(*good))

    rejected = judged.filter(pl.col("reason").is_not_null())
    assert len(good) >= 40
    assert rejected.height <= 0.03 * len(good), rejected.rows(named=True)


@pytest.mark.parametrize("name", IN_DEFAULT)
def test_the_default_chain_rejects_the_bad_examples_of_each_filter(name: str) -> None:
    bad = [row for row in rows(name) if row["reason"] is not None and "params" not in row]
    flagged_only = {"pii_email", "pii_phone", "pii_ip"}

    judged = run_chain(load_chain("sft_default"), view(*bad))

    for row, reason, flags in zip(bad, judged["reason"], judged["flags"], strict=True):
        assert (reason is None) == (row["reason"] in flagged_only), (row, reason)
        assert reason is not None or f"contact:{row['reason']}" in flags


@pytest.mark.parametrize(
    "name", ["sft_default", "strict", "code", "reasoning", "math", "chat_multiturn", "tool_use"]
)
def test_bundled_chains_load(name: str) -> None:
    chain = load_chain(name)

    assert chain.name == name
    assert chain.version >= 1
    assert chain.description


def test_none_is_the_chain_that_keeps_everything() -> None:
    judged = run_chain(load_chain("none"), view({"completion": None}))

    assert judged["reason"].to_list() == [None]
    assert judged.schema == RESULT


def test_an_empty_frame_gives_an_empty_result() -> None:
    judged = run_chain(load_chain("sft_default"), VIEW.to_frame())

    assert judged.is_empty()
    assert judged.schema == RESULT


def chain_file(folder: Path, steps: str) -> str:
    (folder / "mine.yaml").write_text(f"name: mine\nversion: 1\nsteps:\n{steps}", encoding="utf-8")
    return "mine.yaml"


def test_the_first_failing_step_names_the_stage(tmp_path: Path) -> None:
    name = chain_file(tmp_path, "  - truncation\n  - length: {min_chars: 20, id: short}\n  - refusal\n")
    frame = view(
        {"completion": "cut", "finish_reason": "length"},
        {"completion": "too short"},
        {"completion": "I'm sorry, but I can't assist with that."},
        {"completion": "An answer of ordinary length."},
    )

    judged = run_chain(load_chain(name, tmp_path), frame)

    assert judged["stage"].to_list() == ["filter:truncation", "filter:short", "filter:refusal", None]
    assert judged["reason"].to_list() == ["truncated", "length_short", "refusal", None]


def test_later_steps_see_only_rows_that_are_alive(tmp_path: Path) -> None:
    name = chain_file(tmp_path, "  - length: {min_chars: 20}\n  - echo\n")

    judged = run_chain(load_chain(name, tmp_path), view({"completion": "short"}, {"completion": "x" * 30}))

    assert [[score["name"] for score in scores] for scores in judged["scores"].to_list()] == [
        ["length"],
        ["length", "echo"],
    ]


def test_a_flagging_step_keeps_the_row_with_a_flag(tmp_path: Path) -> None:
    name = chain_file(
        tmp_path, "  - length: {min_chars: 20, on_reject: flag}\n  - truncation: {on_reject: flag}\n"
    )

    judged = run_chain(
        load_chain(name, tmp_path),
        view({"completion": "cut", "finish_reason": "length"}, {"completion": "y" * 20}),
    )

    assert judged["reason"].to_list() == [None, None]
    assert judged["flags"].to_list() == [["length:length_short", "truncation:truncated"], []]


def test_a_routing_step_rejects(tmp_path: Path) -> None:
    name = chain_file(tmp_path, "  - length: {min_chars: 20, on_reject: route}\n")

    judged = run_chain(load_chain(name, tmp_path), view({"completion": "short"}))

    assert judged["stage"].to_list() == ["filter:length"]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (
            "  - lenght: {min_chars: 2}\n",
            r"mine\.yaml:4: steps\[0\]: unknown filter 'lenght'; did you mean 'length'",
        ),
        (
            "  - truncation\n  - length: {min_char: 2}\n",
            r"mine\.yaml:5: steps\[1\]\.length\.min_char: unknown key; did you mean 'min_chars'",
        ),
        ("  - length:\n      min_chars: -2\n", r"mine\.yaml:5: steps\[0\]\.length\.min_chars: .*got -2"),
        ("  - length: {on_reject: keep}\n", r"mine\.yaml:4: steps\[0\]\.length\.on_reject: "),
        (
            "  - length: {min_chars: 9, max_chars: 3}\n",
            r"mine\.yaml:4: steps\[0\]\.length: max_chars = 3 is below",
        ),
        ("  - length: 20\n", r"mine\.yaml:4: steps\[0\]\.length: must be a mapping"),
        ("  - {length: {}, echo: {}}\n", r"mine\.yaml:4: steps\[0\]: a step is one filter name"),
        ("  - echo\n  - echo\n", r"mine\.yaml:5: steps\[1\]: a second step with the id 'echo'"),
        ("  []\n", r"mine\.yaml:3: steps: "),
    ],
)
def test_a_mistake_in_a_chain_is_reported_at_its_line(tmp_path: Path, steps: str, expected: str) -> None:
    name = chain_file(tmp_path, steps)

    with pytest.raises(RecipeError, match=expected):
        load_chain(name, tmp_path)


def test_an_unknown_chain_is_a_usage_error_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match="sft_default"):
        load_chain("sft_defualt")


def test_the_digest_follows_the_parameters_and_not_the_writing(tmp_path: Path) -> None:
    written = [
        "  - pii: {kinds: [email, iban, phone]}\n",
        "  - pii:\n      kinds: [phone, email, iban]\n",
        "  - pii: {kinds: [email]}\n",
    ]

    first, same, other = [load_chain(chain_file(tmp_path, steps), tmp_path).digest for steps in written]

    assert first == same
    assert first != other


# --- why a row went -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILTERS)
def test_every_rejection_has_step_reason_score_and_threshold(name: str, tmp_path: Path) -> None:
    bad = [row for row in rows(name) if row["reason"] is not None and "params" not in row]

    judged = run_chain(
        load_chain(chain_file(tmp_path, f"  - {name}: {json.dumps(NEEDED.get(name, {}))}\n"), tmp_path),
        view(*bad),
    )

    assert judged.select("stage", "reason", "score", "threshold").null_count().row(0) == (0, 0, 0, 0)


def test_a_broken_bound_is_the_threshold_and_the_score_is_in_its_unit(tmp_path: Path) -> None:
    name = chain_file(tmp_path, "  - length: {min_words: 3, max_chars: 40}\n")
    frame = view({"completion": "Two words"}, {"completion": "y " * 30})

    judged = run_chain(load_chain(name, tmp_path), frame)

    assert judged.select("score", "threshold").rows() == [(2.0, 3.0), (59.0, 40.0)]


def test_a_fact_counts_as_one_where_none_is_allowed(tmp_path: Path) -> None:
    judged = run_chain(
        load_chain(chain_file(tmp_path, "  - truncation\n"), tmp_path),
        view({"completion": "cut", "finish_reason": "length"}),
    )

    assert judged.select("score", "threshold").rows() == [(1.0, 0.0)]
    assert judged["scores"].to_list() == [[]]


# --- filters of one's own -------------------------------------------------------------------------------------


def polite(completion: str, *, word: str = "please") -> tuple[str | None, float]:
    """A row filter of a user's."""
    said = completion.lower().count(word)
    return (None if said else "rude"), said


def short(frame: pl.DataFrame, *, most: int) -> Verdicts:
    """A frame filter of a user's."""
    size = frame["completion"].str.len_chars().cast(pl.Float64)
    return Verdicts(
        (size > most).replace_strict({True: "too_much", False: None}, return_dtype=pl.String), size
    )


def broken(completion: str) -> str | None:
    """A row filter that cannot count to three."""
    return None if completion[2] else "odd"


def test_a_function_of_a_row_is_a_filter(tmp_path: Path) -> None:
    name = chain_file(tmp_path, f"  - {__name__}:polite: {{word: bitte}}\n")

    judged = run_chain(load_chain(name, tmp_path), view({"completion": "Bitte sehr."}, {"completion": "Da."}))

    assert judged["reason"].to_list() == [None, "rude"]
    assert judged["stage"].to_list() == [None, "filter:polite"]
    assert judged["scores"][0].to_list() == [{"name": "polite", "score": 1.0}]


def test_a_function_of_a_frame_is_a_filter(tmp_path: Path) -> None:
    name = chain_file(tmp_path, f"  - {__name__}:short: {{most: 4, id: brief}}\n")

    judged = run_chain(load_chain(name, tmp_path), view({"completion": "four"}, {"completion": "five!"}))

    assert judged["stage"].to_list() == [None, "filter:brief"]


def test_a_row_on_which_a_users_filter_fails_is_rejected_alone(tmp_path: Path) -> None:
    name = chain_file(tmp_path, f"  - {__name__}:broken\n")

    judged = run_chain(load_chain(name, tmp_path), view({"completion": "fine"}, {"completion": ""}))

    assert judged.select("reason", "detail").rows() == [
        (None, None),
        ("filter_error", "IndexError: string index out of range"),
    ]


def test_parameters_of_a_users_filter_are_checked_at_their_line(tmp_path: Path) -> None:
    name = chain_file(tmp_path, f"  - {__name__}:short: {{most: many}}\n")

    with pytest.raises(RecipeError, match=r"mine\.yaml:4: steps\[0\]\..*most: .*integer"):
        load_chain(name, tmp_path)


# One text for every alternative of the leakage patterns: a search for signs comes first, and must let all of them pass.
LEAKS = [
    "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|endoftext|>", "<|end_of_text|>", "<|begin_of_text|>", "<|eot_id|>",
    "<|eom_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>",
    "<|endofprompt|>", "<|python_tag|>", "<|fim_prefix|>", "<|tool_calls|>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>",
    "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<pad>", "<unk>", "<｜User｜>", "[MASK]", "[PAD]", "[CLS]",
    "[SEP]", "<0x0A>", "<s> Yes", "Yes</s>", "### Instruction:", "##Response:", "### Inputs:", "<noinput>", "<No Output>",
    "{{ instruction }}", "{{-response}}", "{{messages[0]}}", "Below is an instruction that describes a task",
    "#Given Prompt#", "#Rewritten Prompt#", "You are a helpful, honest assistant.", "as stated in the system prompt",
    "my instructions say", "[insert name]", "[Enter the date here]", "[add a line]", "[fill in]", "[put it here]",
    "[include a link]", "[replace with your name]", "<insert name>", "<enter it>", "<fill in here>", "[Einfügen]",
    "[hier einfügen]", "[insérer le nom]", "[insertar]", "[inserir]", "TODO: write this", "Lorem ipsum dolor sit amet",
]  # fmt: skip


@pytest.mark.parametrize("leak", LEAKS)
def test_every_kind_of_leaked_text_is_found(leak: str) -> None:
    texts = [leak, f"{leak} and more" if leak != "Yes</s>" else leak]

    verdicts = judge(
        "leakage", view(*({"prompt": "Why is the sky blue?", "completion": text} for text in texts))
    )

    assert verdicts.reason.null_count() == 0


def test_an_echo_is_measured_wherever_it_stands() -> None:
    asked = "What, then, is a Photosynthetic organism?"
    answers = [f"{asked.upper()} One that eats light.", "what then is a photosynthetic organism", "A plant."]

    verdicts = judge("echo", view(*({"prompt": asked, "completion": answer} for answer in answers)))

    assert verdicts.reason.to_list() == [None, "echo", None]
    assert [round(score, 2) for score in verdicts.score] == [0.66, 1.0, 0.0]


@pytest.mark.parametrize(
    ("prompt", "completion", "expected"),
    [
        ("antennas that transmit evenly in one plane are called", "Antennas that transmit evenly in one plane are called isotropic.", None),
        ("Antennas that transmit evenly in one plane are called?", "Antennas that transmit evenly in one plane are called what?", "echo"),
        ("antennas that transmit evenly in one plane are called", "Antennas that transmit evenly in one plane are called", "echo"),
    ],
)  # fmt: skip
def test_a_sentence_that_is_finished_is_no_echo(prompt: str, completion: str, expected: str | None) -> None:
    verdicts = judge("echo", view({"prompt": prompt, "completion": completion}))

    assert verdicts.reason.to_list() == [expected]


def test_a_list_of_one_pattern_is_no_loop() -> None:
    ways = [
        "",
        " to code",
        " for beginners",
        " online",
        " for free",
        " in school",
        " on a phone",
        " as a child",
    ]
    answer = "\n".join(f'{n}. "What is the best way to learn{way}?"' for n, way in enumerate(ways, 1))

    verdicts = judge("repetition", view({"completion": answer}))

    assert verdicts.reason.to_list() == [None]
    assert 0.4 < verdicts.score[0] < 0.55
