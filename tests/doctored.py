"""A loopback teacher that can do everything a doctor asks about, or lies about chosen parts of it.

In: what it is able to do. Out: a `Loopback` server in both dialects. An ability that is off is accepted and ignored, as
bad servers do; `refuses` names the ones that are refused with a 400 instead, as good ones do.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.loopback import Act, Body, Loopback, Page, answer_text, refuse

TOOL = "report_temperature"
LIMIT_HEADERS = {
    "x-ratelimit-limit-requests": "500",
    "x-ratelimit-remaining-requests": "499",
    "x-ratelimit-reset-requests": "120ms",
}


def page(payload: object, status: int = 200) -> Act:
    """What a GET finds."""
    return Act("refuse", status, payload)  # type: ignore[arg-type]  # plain JSON or text


def models(*names: str) -> dict[str, Act]:
    """A list of models where both dialects have it."""
    return {"/v1/models": page({"data": [{"id": name, "max_model_len": 4096} for name in names]})}


VLLM_PAGES = {
    **models("qwen3"),
    "/version": page({"version": "0.12.1"}),
    "/metrics": page("# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting 0.0\n"),
}


class Doctored:
    """The behaviour; `server` makes the `Loopback` that has it."""

    def __init__(
        self,
        *ignored: str,
        refuses: tuple[str, ...] = (),
        k_max: int = 20,
        k_over: str = "refuse",
        usage: bool = True,
        script: Callable[[int, Body], Act | None] = lambda _number, _body: None,
    ):
        self.ignored = ignored
        self.refuses = refuses
        self.k_max, self.k_over = k_max, k_over
        self.usage = usage
        self.script = script
        self.stories = 0

    def server(self, pages: Mapping[str, Page] = VLLM_PAGES, **changes: Any) -> Loopback:
        most = 1 if "n" in self.ignored else 128
        fields = {
            "reply": self.reply,
            "script": self.act,
            "edit": self.edit,
            "pages": pages,
            "most_choices": most,
        }
        return Loopback(**{**fields, **changes})

    def act(self, number: int, body: Body) -> Act | None:
        """Refusals, before anything is paid."""
        planned = self.script(number, body)
        if planned is not None:
            return planned
        asked = _abilities_asked(body)
        k = body.get("top_logprobs")
        if isinstance(k, int) and k > self.k_max and self.k_over == "refuse":
            return refuse(400, {"error": {"message": f"top_logprobs is at most {self.k_max}"}})
        for name in self.refuses:
            if name in asked:
                return refuse(400, {"error": {"message": f"{name} is not supported here"}})
        return Act(headers=LIMIT_HEADERS)

    def obeys(self, ability: str, body: Body) -> bool:
        return ability in _abilities_asked(body) and ability not in self.ignored

    def reply(self, body: Body) -> str:
        said = json.dumps([body.get("system"), body.get("messages")])
        if self.obeys("structured", body):
            return answer_text(body, 8)
        if self.obeys("structured_outputs", body):
            return "okapi"
        if self.obeys("system", body):
            return "Marmalade."
        if "Count from 1 to 9" in said:
            return "1 2 3 4 5 " if self.obeys("stop", body) else "1 2 3 4 5 6 7 8 9"
        if "long story" in said:
            return self._story(body)
        if "tools" in _abilities_asked(body):
            return "" if self._calls(body) else "It is cold."
        return "9"

    def _story(self, body: Body) -> str:
        self.stories += 1
        seed = body.get("seed") if "seed" not in self.ignored else self.stories
        words = answer_text({"messages": body["messages"], "seed": seed}, 200).split(" ")
        limits = [body.get(name) for name in ("max_tokens", "max_completion_tokens")]
        if "max_completion_tokens" in self.ignored:
            limits.pop()
        limit = min(limit for limit in limits if isinstance(limit, int))
        return " ".join(words if "max_tokens" in self.ignored else words[:limit])

    def edit(self, body: Body, answer: Body) -> Body:
        edited: Any = answer
        cut = "long story" in json.dumps(body["messages"]) and "max_tokens" not in self.ignored
        if not self.usage:
            edited.pop("usage")
        if "content" in edited:
            edited["stop_reason"] = "max_tokens" if cut else "end_turn"
            if self._calls(body):
                call = {"type": "tool_use", "id": "c1", "name": TOOL, "input": self._arguments}
                edited["content"] = [call]
            return answer
        for choice in edited["choices"]:
            choice["finish_reason"] = "length" if cut else "stop"
            if self._calls(body):
                function = {"name": TOOL, "arguments": json.dumps(self._arguments)}
                call = {"id": "c1", "type": "function", "function": function}
                choice["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
            elif "tools" in body:
                choice["message"] = {"role": "assistant", "content": "It is cold."}
            if "logprobs" in choice:
                self._limit_logprobs(choice)
        return answer

    def _calls(self, body: Body) -> bool:
        forced = "tool_choice" in body
        return "tools" in body and "tools" not in self.ignored and (forced or "auto" not in self.ignored)

    @property
    def _arguments(self) -> dict[str, object]:
        return {} if "arguments" in self.ignored else {"city": "Oslo", "celsius": 7}

    def _limit_logprobs(self, choice: dict[str, Any]) -> None:
        """No more than `k_max` alternatives; what is missing may be filled up."""
        if "logprobs" in self.ignored or ("alternatives" in self.ignored and self._has_alternatives(choice)):
            del choice["logprobs"]
            return
        for entry in choice["logprobs"]["content"]:
            missing = len(entry["top_logprobs"]) - self.k_max
            del entry["top_logprobs"][self.k_max :]
            if self.k_over == "sentinels":
                entry["top_logprobs"] += [{"token": "", "logprob": -9999.0}] * missing

    @staticmethod
    def _has_alternatives(choice: dict[str, Any]) -> bool:
        return any(entry["top_logprobs"] for entry in choice["logprobs"]["content"])


def _abilities_asked(body: Body) -> set[str]:
    """The abilities a request leans on."""
    asked = {name for name in ("tools", "seed", "structured_outputs") if name in body}
    asked |= {"structured"} if "response_format" in body or "output_config" in body else set()
    asked |= {"stop"} if "stop" in body or "stop_sequences" in body else set()
    asked |= {"logprobs"} if "top_logprobs" in body else set()
    asked |= {"system"} if "marmalade" in json.dumps(body) else set()
    asked |= {"n"} if body.get("n") == 2 else set()
    asked |= {"auto"} if "tools" in body and "tool_choice" not in body else set()
    return asked
