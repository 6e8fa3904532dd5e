"""One endpoint from top to bottom: is it there, does it answer, what does it do with what it is asked.

In: a `Caller`, a `ControlPlane`, and what gate 2 would say of a served name. Out: findings, in the order in which they
were made, each told as soon as it is known. Guarantees: probes come one after the other; an endpoint that does not
answer a plain question is asked nothing else; every probe of the dialect has a finding.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from synthgen.asking.doctor.caller import Caller, Heard
from synthgen.asking.doctor.control import (
    ControlPlane,
    ModelList,
    find_metrics,
    find_required_limit,
    find_token_count,
    find_version,
    find_version_header,
    read_models,
)
from synthgen.asking.doctor.findings import Finding
from synthgen.asking.doctor.logprobs import probe_logprobs
from synthgen.asking.doctor.probes import (
    find_limits,
    find_reasoning,
    find_usage,
    probe_choice,
    probe_completion_limit,
    probe_many,
    probe_stop,
    probe_story,
    probe_structured,
    probe_system,
    probe_tools,
)
from synthgen.asking.doctor.questions import CHAT
from synthgen.asking.outcome import Answer, HttpReply, LaneStop
from synthgen.asking.wire.loose import as_count, shorten

__all__ = ["Served", "examine"]

# A served name -> why its answers would be quarantined, or None.
Served = Callable[[str | None], str | None]
_NO_FIELD = "this dialect has no field for it"


async def examine(caller: Caller, control: ControlPlane, misidentified: Served) -> AsyncGenerator[Finding]:
    """Every finding about one endpoint."""
    reachable, listed = await control.reach()
    yield reachable
    if listed is None:
        return
    models = read_models(listed)
    chat = await caller.ask(CHAT)
    yield _find_key(caller, chat, listed)
    yield _find_model(caller, chat, models, misidentified)
    if not isinstance(chat.outcome, Answer):
        yield chat.refusal("chat")
        return
    async with aclosing(_abilities(caller, control, chat, chat.outcome)) as found:
        async for finding in found:
            yield finding
    if caller.stopped is not None:
        said = f"stopped answering; {caller.stopped.reason}: {caller.stopped.message}"
        yield Finding("steady", "error", shorten(said, 160))


async def _abilities(
    caller: Caller, control: ControlPlane, chat: Heard, answer: Answer
) -> AsyncGenerator[Finding]:
    """What an endpoint that answers can do."""
    completion = answer.completion
    said = repr(shorten(completion.text, 60)) if completion.text else "an empty text"
    yield Finding("chat", "yes", f"{completion.finish_reason}: {said}")
    yield find_usage(completion)
    yield find_limits(answer.limits, chat.reply.headers if chat.reply else {})
    yield find_reasoning(chat, completion)
    yield await probe_system(caller)
    yield await probe_stop(caller)
    for finding in await probe_story(caller, has_seed=caller.dialect == "openai"):
        yield finding
    yield await probe_structured(caller)
    yield await probe_tools(caller)
    if caller.dialect == "openai":
        yield await probe_many(caller)
        yield await probe_logprobs(caller)
        yield await probe_completion_limit(caller)
    else:
        yield Finding("n", "no", _NO_FIELD, 1)
        yield Finding("logprobs", "no", _NO_FIELD, {"k_max": None, "k_refused": 0, "token_ids": False})
        yield await find_required_limit(control, caller.spec.config.model)
        yield await find_version_header(control)
        yield await find_token_count(control, caller.spec.config.model)
    if caller.spec.config.provider == "vllm":
        yield await probe_choice(caller)
        yield await find_version(control)
        yield await find_metrics(control)


def _find_key(caller: Caller, chat: Heard, listed: HttpReply) -> Finding:
    """Accepted, refused (401) or known but not allowed (403): the plain question decides, the list is a hint."""
    variable = getattr(caller.spec.config, "key_variable", None)
    shown = f"the key in {variable}"
    if isinstance(chat.outcome, Answer):
        return Finding("key", "yes", f"{shown} is accepted" if variable else "none is sent, none is needed")
    if isinstance(chat.outcome, LaneStop) and chat.outcome.reason == "auth":
        status = chat.reply.status if chat.reply else 0
        what = "is known, but may not ask this" if status == 403 else "is not accepted"
        why = f"{shown} {what}" if variable else "none is sent, but one is wanted"
        return Finding("key", "no", shorten(f"{why}: {chat.outcome.message}", 160), status)
    if listed.status == 200 and variable:
        return Finding("key", "unknown", f"{shown} may list models; the plain question had no answer")
    return Finding("key", "unknown", "the plain question had no answer")


def _find_model(caller: Caller, chat: Heard, models: ModelList, misidentified: Served) -> Finding:
    """Whether the model is there, under which name it answers, and whether that is the vetted one."""
    model = caller.spec.config.model
    listed = _listed(models, model)
    if isinstance(chat.outcome, LaneStop) and chat.outcome.reason == "model":
        known = sorted(models.models or ())[:3]
        there = f"; listed are {', '.join(known)}" if known else ""
        return Finding("model", "no", shorten(f"{chat.outcome.message}{there}", 160))
    if not isinstance(chat.outcome, Answer):
        return Finding("model", "unknown", f"{model}: {listed}")
    served = chat.outcome.completion.served_model
    problem = misidentified(served)
    if problem is not None:
        way_out = f"answers would be quarantined; if that is right, add served_as: [{served}]"
        return Finding("model", "no", f"{problem}: {way_out}", served)
    said = f"answers as {served}" if served else "answers without a name"
    return Finding("model", "yes", f"{said}; {listed}", served)


def _listed(models: ModelList, model: str) -> str:
    if models.models is None:
        return f"no list ({models.why})"
    entry = models.models.get(model)
    if entry is None:
        return f"not among the {len(models.models)} listed"
    context = as_count(entry.get("max_model_len") or entry.get("max_input_tokens"))
    return f"listed, context {context} tokens" if context else "listed"
