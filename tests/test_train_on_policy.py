"""On-policy distillation through TRL's trainers."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from transformers import LlamaForCausalLM, PreTrainedModel

from synthgen.errors import UsageError
from synthgen.train import on_policy
from synthgen.train.on_policy import OnPolicyConfig, on_policy_trainer, require_trl
from synthgen.types import Message
from tests.chat_templates import tokenizer
from tests.tiny_models import tiny_llama

torch.set_num_threads(1)  # threads that share a core spin: minutes instead of seconds

TOKENIZER = tokenizer("chatml")
PROMPTS = [[Message("user", text)] for text in ("Where?", "Really?", "In Paris?", "Why?")]


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    tiny_llama(len(TOKENIZER), seed=1, initializer_range=1.0).save_pretrained(tmp_path / "teacher")
    TOKENIZER.save_pretrained(tmp_path / "teacher")
    return tmp_path / "teacher"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_student_learns_from_what_it_writes_itself(teacher: Path, tmp_path: Path) -> None:
    config = OnPolicyConfig(
        teacher=str(teacher), max_new_tokens=8, max_steps=2, batch_size=2, learning_rate=1e-3, cpu=True
    )
    student = tiny_llama(len(TOKENIZER), seed=2)
    before = student.model.layers[0].mlp.up_proj.weight.detach().clone()

    trainer = on_policy_trainer(student, TOKENIZER, PROMPTS, config, tmp_path / "out")
    result = trainer.train()

    assert result.global_step == 2
    assert result.training_loss > 0
    assert not torch.equal(before, trainer.model.model.layers[0].mlp.up_proj.weight.detach().cpu())


def test_a_teacher_with_other_tokens_is_refused(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="different tokenizers"):
        on_policy_trainer(
            tiny_llama(), tokenizer("llama3"), PROMPTS, OnPolicyConfig(teacher=str(teacher)), tmp_path
        )


class Scorer(BaseHTTPRequestHandler):
    """What vLLM answers to those who ask how likely the tokens of their prompts are, by a model of its class."""

    model: PreTrainedModel

    def do_GET(self) -> None:
        self.say({"data": [{"id": "teacher"}]} if self.path == "/v1/models" else {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/completions"
        self.say({"choices": [self.scored(ids, asked["prompt_logprobs"]) for ids in asked["prompt"]]})

    def scored(self, ids: list[int], k: int) -> dict[str, object]:
        with torch.no_grad():
            logprobs = self.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        places: list[dict[str, object] | None] = [None]
        for row, token in zip(logprobs[:-1], ids[1:], strict=True):
            ranks = row.argsort(descending=True).tolist()
            kept = dict.fromkeys([*ranks[:k], token])
            places.append({str(at): {"logprob": float(row[at]), "rank": ranks.index(at) + 1} for at in kept})
        return {"prompt_logprobs": places}

    def say(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def server(teacher: Path) -> Iterator[str]:
    """The base URL of a server that scores with the teacher, as other parts of a recipe name it."""
    Scorer.model = LlamaForCausalLM.from_pretrained(teacher).eval()
    with ThreadingHTTPServer(("127.0.0.1", 0), Scorer) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}/v1"
        listening.shutdown()
        thread.join()


@pytest.mark.parametrize(("seed", "least", "most"), [(1, 0, 1e-4), (2, 1, 20)], ids=["teacher", "other"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_server_scores_what_the_student_wrote(
    teacher: Path, server: str, tmp_path: Path, seed: int, least: float, most: float
) -> None:
    """A student that is its teacher has nothing to learn; another one has."""
    config = OnPolicyConfig(
        teacher=str(teacher),
        server=server,
        beta=0,
        top=5,
        max_new_tokens=6,
        max_steps=1,
        batch_size=4,
        cpu=True,
    )
    student = tiny_llama(len(TOKENIZER), seed=seed, initializer_range=1.0)

    trainer = on_policy_trainer(student, TOKENIZER, PROMPTS, config, tmp_path / "out")
    result = trainer.train()

    assert least <= result.training_loss <= most


def test_another_temperature_than_the_servers_is_refused() -> None:
    with pytest.raises(ValidationError, match="temperature has to be 1"):
        OnPolicyConfig(teacher="x", server="http://127.0.0.1:8000", temperature=0.7)


def test_another_trl_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require_trl()
    monkeypatch.setattr(on_policy, "version", lambda _: "1.17.0")

    with pytest.raises(UsageError, match=r"wired to TRL 1\.16, found 1\.17\.0"):
        require_trl()


def test_a_reverse_kl_over_several_tokens_of_a_server_is_refused() -> None:
    with pytest.raises(ValidationError, match="set top: 1, or beta: 0"):
        OnPolicyConfig(teacher="x", server="http://127.0.0.1:8000", top=20)
