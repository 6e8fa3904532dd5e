"""Top-k labels captured by `generate` from a server that speaks as vLLM does, and trained on."""

import math
from pathlib import Path

import orjson
import pytest
import torch

from synthgen.errors import UsageError
from synthgen.train.config import LoadedStudent, load_student
from synthgen.train.story import train
from tests.chat_templates import tokenizer
from tests.loopback import Body, Loopback
from tests.runs import cli, recipe, save
from tests.tiny_models import tiny_llama

torch.set_num_threads(1)

TOKENIZER = tokenizer("chatml")
ANSWER = "The capital of France is Paris."


def answered(body: Body, answer: Body, *, as_ids: bool) -> Body:
    """With the teacher's tokens: each 0.7, two others 0.1; named by id, as vLLM does when asked to, or by text."""
    ids = TOKENIZER(ANSWER, add_special_tokens=False)["input_ids"]
    content = []
    for place, one in enumerate(ids):
        others = [(one + step) % 200 for step in (1 + place % 3, 7)]
        tops = []
        for other, share in zip([one, *others], (0.7, 0.1, 0.1), strict=True):
            name = f"token_id:{other}" if as_ids else TOKENIZER.decode([other])
            tops.append({"token": name, "logprob": math.log(share), "bytes": list(name.encode())})
        spelled = list(TOKENIZER.decode([one]).encode())
        content.append({**tops[0], "bytes": spelled, "top_logprobs": tops})
    (choice,) = answer["choices"]  # type: ignore[misc]
    assert isinstance(choice, dict)
    choice["logprobs"] = {"content": content}
    choice.pop("token_ids", None)
    usage = answer["usage"]
    assert isinstance(usage, dict)
    usage["completion_tokens"] = len(ids)  # a capture of another length is not believed
    if as_ids:
        choice["token_ids"] = ids
    return answer


def generated(folder: Path, *, as_ids: bool) -> Path:
    def edit(body: Body, answer: Body) -> Body:
        return answered(body, answer, as_ids=as_ids)

    with Loopback(reply=lambda _: ANSWER, edit=edit) as server:
        content = recipe(server, 6)
        content["steps"][0]["capture"] = {"logprobs": 3}
        content["refine"] = {"chain": "none", "dedup": {"near": None}}
        done = cli("generate", save(folder / "r.yaml", content), "-o", folder / "run")
    assert done.code == 0, done.err
    return folder / "run"


def student(folder: Path) -> LoadedStudent:
    stop = TOKENIZER.eos_token_id
    model = tiny_llama(len(TOKENIZER), eos_token_id=stop, pad_token_id=stop, max_position_embeddings=1024)
    model.save_pretrained(folder / "base")
    TOKENIZER.save_pretrained(folder / "base")
    return load_student(
        {
            "name": "kd",
            "base": str(folder / "base"),
            "loss": {"kd": {"weight": 0.9, "k": 3, "tokenizer": str(folder / "base")}},
            "steps": {"max_steps": 30, "batch_size": 4, "learning_rate": 1e-2},
        }
    )


def test_a_student_learns_what_generate_captured(tmp_path: Path) -> None:
    run = generated(tmp_path, as_ids=True)

    report = train(student(tmp_path), run, tmp_path / "out")

    lines = [orjson.loads(line) for line in (report.out / "metrics.jsonl").read_bytes().splitlines()]
    kd = [line["kd"] for line in lines if "kd" in line]
    assert report.refused == {}
    assert kd[-1] < 0.5 * kd[0]


def test_a_capture_without_ids_is_refused_with_the_reason(tmp_path: Path) -> None:
    run = generated(tmp_path, as_ids=False)

    with pytest.raises(UsageError, match="hold no token ids, only texts of tokens"):
        train(student(tmp_path), run, tmp_path / "out")

    assert not (tmp_path / "out").exists()
