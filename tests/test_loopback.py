"""The loopback teacher itself: what other tests rely on."""

import json
import urllib.request
from pathlib import Path

from tests.loopback import Body, Loopback, LoopbackProcess, answer_text, every, refuse


def post(url: str, body: Body) -> Body:
    data = json.dumps(body).encode()
    asked = urllib.request.Request(f"{url}/chat/completions", data, {"content-type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked) as response:
        answer: Body = json.load(response)
        return answer


def ask(text: str) -> Body:
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


def test_the_same_body_gets_the_same_text_and_another_id() -> None:
    with Loopback() as server:
        first, second = post(server.url, ask("a")), post(server.url, ask("a"))

    assert first["choices"] == second["choices"]
    assert first["id"] != second["id"]
    assert server.paid_twice == 1


def test_another_message_gets_another_text() -> None:
    assert answer_text(ask("a"), 40) != answer_text(ask("b"), 40)


def test_a_schema_is_answered_by_an_instance_of_it() -> None:
    schema: Body = {
        "type": "object",
        "properties": {"label": {"enum": ["x"]}, "score": {"type": "integer", "minimum": 3, "maximum": 3}},
    }
    body: Body = {**ask("a"), "response_format": {"json_schema": {"schema": schema}}}

    assert json.loads(answer_text(body, 40)) == {"label": "x", "score": 3}


def test_every_third_request_is_refused() -> None:
    script = every(3, refuse(429))

    acts = [script(number, {}) for number in range(1, 7)]

    assert [act is not None for act in acts] == [False, False, True, False, False, True]


def test_a_process_logs_each_payment_before_it_answers(tmp_path: Path) -> None:
    with LoopbackProcess("--words", "5", log=tmp_path / "paid.jsonl") as server:
        answer = post(server.url, ask("a"))

        assert [payment.id for payment in server.payments()] == [answer["id"]]
        assert server.payments()[0].output_tokens == 5


def test_a_process_writes_its_port_file(tmp_path: Path) -> None:
    port_file = tmp_path / "port"

    with LoopbackProcess("--port-file", str(port_file), log=tmp_path / "paid.jsonl") as server:
        assert server.url == f"http://127.0.0.1:{port_file.read_text()}/v1"
