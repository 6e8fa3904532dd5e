"""Against a real vLLM server: what it sends is what we read. `make test-vllm` installs and starts one.

The model is small and its answers are poor; what is tested is the truth about them: ids, probabilities, samples,
schemas, tool calls.
"""

import json
import math
import os
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from synthgen.train.depth import evenly, shallower
from tests.runs import FREE, Recipe, cli, records, save, save_prompt

URL = os.environ.get("SYNTHGEN_VLLM_URL", "")
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not URL, reason="needs a vLLM server: make test-vllm"),
]

THINGS = ("bicycle", "compass", "tent", "guitar", "battery", "camera", "lamp", "kettle", "ladder", "clock")
DECODE = """
import json, sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
print(json.dumps([tokenizer.decode(ids, skip_special_tokens=True) for ids in json.load(sys.stdin)]))
"""
CITY = {
    "type": "object",
    "properties": {
        "size": {"type": "string", "enum": ["small", "large"]},
        "coast": {"type": "boolean"},
    },
    "required": ["size", "coast"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "strict": True,  # without it vLLM 0.32 lets the arguments be anything
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Bonn", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def teaching(rows: int, step: dict[str, object], **changes: object) -> Recipe:
    smollm = {
        "provider": "vllm",
        "base_url": URL,
        "route": "self-hosted",
        "model": MODEL,
        "hf": MODEL,
        "price": FREE,
        "sampling": {"max_tokens": 32, "temperature": 0.0},
    }
    return {
        "name": "real",
        "use": ["train-general"],
        "source": {"inline": [{"instruction": f"What is a {THINGS[n % 10]}? ({n})"} for n in range(rows)]},
        "teachers": {"smollm": smollm},
        "steps": [{"name": "answer", "prompt": "answer", "teacher": "smollm", **step}],
        "refine": {"chain": "none", "dedup": {"near": None}},
        **changes,
    }


def generated(tmp_path: Path, content: Recipe) -> tuple[dict[str, Any], Path]:
    result = cli("generate", save(tmp_path / "r.yaml", content), "-o", tmp_path / "o", "--json")
    assert result.code == 0, result.err
    return result.json, tmp_path / "o"


def decoded(ids: list[list[int]]) -> list[str]:
    """Texts of token ids, by the library the model's users use."""
    python, model = os.environ["SYNTHGEN_VLLM_PYTHON"], os.environ["SYNTHGEN_VLLM_MODEL"]
    done = subprocess.run(
        [python, "-c", DECODE, model], input=json.dumps(ids), capture_output=True, text=True, check=True
    )
    return list(json.loads(done.stdout))


def test_captured_ids_decode_to_the_published_text(tmp_path: Path) -> None:
    report, out = generated(tmp_path, teaching(10, {"capture": {"logprobs": 5}}))

    rows = pl.read_parquet(out / "logprobs/*.parquet").sort("id")
    published = sorted(records(out), key=lambda record: str(record["id"]))
    assert report["flags"] == {}
    assert rows["ids_complete"].all()
    assert set(rows["tokenizer"]) == {MODEL}
    texts = [str(record["messages"][-1]["content"]) for record in published]
    assert [text.strip() for text in decoded(rows["token_ids"].to_list())] == texts
    # One entry a token: what the server billed.
    lineage = pl.read_parquet(out / "lineage/*.parquet").sort("id")
    assert rows["token_ids"].list.len().to_list() == lineage["output_tokens"].to_list()


def test_at_temperature_zero_the_likeliest_token_is_the_one_that_was_written(tmp_path: Path) -> None:
    _, out = generated(tmp_path, teaching(4, {"capture": {"logprobs": 20}}))

    for row in pl.read_parquet(out / "logprobs/*.parquet").iter_rows(named=True):
        assert [len(ids) for ids in row["top_ids"]] == [20] * len(row["token_ids"])
        assert [ids[0] for ids in row["top_ids"]] == row["token_ids"]
        assert [values[0] for values in row["top_logprobs"]] == row["logprobs"]
        assert all(sum(map(math.exp, values)) <= 1.001 for values in row["top_logprobs"])


def test_samples_come_in_one_request_with_captures_of_their_own(tmp_path: Path) -> None:
    step = {"samples": 4, "sampling": {"temperature": 1.0, "seed": 3}, "capture": {"logprobs": 2}}

    report, out = generated(tmp_path, teaching(5, step))

    rows = pl.read_parquet(out / "logprobs/*.parquet")
    usage = report["usage"]["total"]
    assert (report["sent"], usage["requests"], report["counts"]["planned"]) == (5, 20, 20)
    assert rows["ids_complete"].all()
    assert usage["output_tokens"] >= rows["token_ids"].list.len().sum()
    texts = [text.strip() for text in decoded(rows.sort("id")["token_ids"].to_list())]
    published = sorted(records(out), key=lambda record: str(record["id"]))
    assert texts == [str(record["messages"][-1]["content"]) for record in published]


def test_a_schema_is_kept_to_and_captured(tmp_path: Path) -> None:
    save_prompt(
        tmp_path / "city.yaml",
        "Describe a town as JSON with size and coast: {{ instruction }}",
        reply={"json": CITY},
        inputs=["instruction"],
        outputs=["size", "coast"],
    )
    step = {"prompt": "city.yaml", "structured": True, "capture": {"logprobs": 5}}
    output = {"record": {"assistant": "{{ size }}"}}
    content = teaching(12, {**step, "sampling": {"temperature": 1.0, "max_tokens": 64}}, output=output)

    report, out = generated(tmp_path, content)

    parsed = report["counts"]["accepted"] + sum(
        count for reason, count in report["reasons"].items() if reason.startswith("dedup")
    )
    cut_off = report["reasons"].get("parse/truncated", 0)
    assert (parsed + cut_off, report["flags"]) == (12, {})
    assert parsed >= 6
    assert pl.read_parquet(out / "logprobs/*.parquet")["ids_complete"].all()


def test_a_tool_that_is_required_is_called(tmp_path: Path) -> None:
    step = {"tools": [WEATHER], "tool_choice": "required", "sampling": {"max_tokens": 96}}

    _, out = generated(tmp_path, teaching(4, step))

    for record in records(out):
        (call,) = record["messages"][-1]["tool_calls"]
        assert call["name"] == "weather"
        assert json.loads(call["arguments"])["city"] in ("Bonn", "Rome")


def test_a_student_learns_from_captured_soft_labels(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    teacher = os.environ["SYNTHGEN_VLLM_MODEL"]
    base = tmp_path / "base"
    whole = AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float32)
    shallower(whole, evenly(whole.config.num_hidden_layers, 10)).save_pretrained(base)
    AutoTokenizer.from_pretrained(teacher).save_pretrained(base)
    _, out = generated(tmp_path, teaching(32, {"capture": {"logprobs": 20}}))
    student = {
        "name": "third",
        "base": str(base),
        "loss": {"kd": {"weight": 0.5, "k": 20, "tokenizer": teacher, "unaligned": "drop"}},
        "steps": {"max_steps": 12, "batch_size": 8, "learning_rate": 3e-4},
    }

    result = cli("train", out, "-c", save(tmp_path / "student.yaml", student), "-o", tmp_path / "s", "--json")

    assert result.code == 0, result.err
    manifest = json.loads((tmp_path / "s/student.json").read_bytes())
    lines = [json.loads(line) for line in (tmp_path / "s/metrics.jsonl").read_text().splitlines()]
    losses = [(line["ce"], line["kd"]) for line in lines if "loss" in line]
    print(f"\n{manifest['report']}\n{losses}")
    assert losses[-1][0] < losses[0][0] / 2
    assert 0 <= losses[-1][1] < losses[0][1] / 2


def divergence(
    teacher: PreTrainedModel, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> float:
    """Nats a token from the teacher to the student, over the whole vocabulary, on answers of the teacher."""
    found = []
    for thing in THINGS[:4]:
        chat = [{"role": "user", "content": f"What is a {thing} for?"}]
        asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")[
            "input_ids"
        ]
        with torch.no_grad():
            ids = teacher.generate(asked, max_new_tokens=24, do_sample=False)
            theirs, ours = (
                model(ids, use_cache=False).logits[:, asked.shape[1] - 1 : -1].float().log_softmax(-1)
                for model in (teacher, student)
            )
        found.append((theirs.exp() * (theirs - ours)).sum(-1).mean())
    return float(torch.stack(found).mean())


@pytest.mark.filterwarnings("ignore::UserWarning")  # of TRL
def test_a_student_learns_from_what_the_server_says_of_its_own_words(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    checkpoint, base = os.environ["SYNTHGEN_VLLM_MODEL"], tmp_path / "base"
    teacher = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    shallower(teacher, evenly(teacher.config.num_hidden_layers, 20)).save_pretrained(base)
    tokenizer.save_pretrained(base)
    rows = [
        {"messages": [{"role": "user", "content": f"Where do people keep a {thing}?"}, {"role": "assistant", "content": "?"}]}
        for thing in THINGS
    ]  # fmt: skip
    asked = tmp_path / "rows.jsonl"
    asked.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    student = {
        "name": "pupil",
        "task": "on_policy",
        "base": str(base),
        "on_policy": {
            "teacher": checkpoint, "server": URL, "beta": 0, "top": 20, "max_new_tokens": 24,
            "max_steps": 12, "batch_size": 8, "learning_rate": 3e-4, "cpu": True,
        },
    }  # fmt: skip
    before = divergence(teacher, AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), tokenizer)

    done = cli("train", asked, "-c", save(tmp_path / "student.yaml", student), "-o", tmp_path / "s", "--json")

    assert done.code == 0, done.err
    lines = [json.loads(line) for line in (tmp_path / "s/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    after = divergence(
        teacher, AutoModelForCausalLM.from_pretrained(tmp_path / "s", dtype=torch.float32), tokenizer
    )
    print(f"\nloss {losses}\nnats a token from the teacher: {before:.2f} before, {after:.2f} after")
    assert len(losses) == 12
    assert sum(losses[-3:]) / 3 < losses[0] / 1.5
    assert after < before


def test_the_server_scores_at_temperature_one_whatever_is_asked(tmp_path: Path) -> None:
    """Why `on_policy` refuses another temperature with a server."""
    scores = []
    for temperature in (1.0, 2.0):
        body = {"model": MODEL, "prompt": [1, 4093, 198, 19556], "max_tokens": 1, "prompt_logprobs": 1}
        request = urllib.request.Request(
            f"{URL}/completions",
            json.dumps({**body, "temperature": temperature}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)["choices"][0]["prompt_logprobs"][1:]
        scores.append([one["logprob"] for place in found for _, one in sorted(place.items())])

    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_a_lane_without_limits_finds_out_what_the_server_bears(tmp_path: Path) -> None:
    report, _ = generated(tmp_path, teaching(60, {"sampling": {"max_tokens": 8}}))

    assert (report["sent"], report["counts"]["failed"]) == (60, 0)
    print(f"\n60 answers of 8 tokens in {report['elapsed_s']:.1f} s")
