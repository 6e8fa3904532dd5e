"""From a teacher's checkpoint to stored logprobs to a student that learns from them; and what is refused on the way."""

from pathlib import Path

import polars as pl
import pytest
import torch
from tokenizers import AddedToken

from synthgen.dataset.write import write_parquet
from synthgen.errors import SourceError, UsageError
from synthgen.schema import RecordShape, logprobs_schema
from synthgen.train.batch import collate
from synthgen.train.config import DataConfig
from synthgen.train.conversation import Conversation
from synthgen.train.examples import IGNORED, Example
from synthgen.train.local_teacher import LocalTeacher
from synthgen.train.losses.config import LossConfig
from synthgen.train.losses.objectives import Distillation
from synthgen.train.masks import mask
from synthgen.train.objective import Forward
from synthgen.train.score import score, write_scores
from synthgen.train.soft_labels import read_captures, soften
from synthgen.train.template import chat_format
from synthgen.train.tokenizers import load_tokenizer, require_same, tokenizer_digest
from synthgen.types import Message
from tests.chat_templates import tokenizer
from tests.tiny_models import tiny_llama

torch.set_num_threads(1)  # threads that share a core spin: minutes instead of seconds

FORMAT = chat_format(tokenizer("chatml"))
TOKENS = len(FORMAT.tokenizer)
TEACHER = LocalTeacher(tiny_llama(TOKENS + 4, seed=1))  # embeddings padded by four columns
K = 5


def examples(*answers: str) -> list[Example]:
    made = []
    for at, answer in enumerate(answers):
        said = (Message("user", "Where?"), Message("assistant", answer))
        conversation = Conversation(said, (True, True), id=f"r{at}", row=f"r{at}")
        made += list(mask([conversation], FORMAT, DataConfig()))
    assert all(isinstance(example, Example) for example in made)
    return [example for example in made if isinstance(example, Example)]


EXAMPLES = examples("In Paris.", "The capital of France is Paris.", "Really?")


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    write_scores(score(EXAMPLES, TEACHER, FORMAT, name="tiny", k=K, rows=2), tmp_path, FORMAT)
    return tmp_path


def rewritten(folder: Path, **columns: pl.Expr) -> Path:
    """The same rows with other values and without the tokenizer's digest, as a capturing run would write them."""
    frame = pl.read_parquet(folder / "score-00000.parquet").with_columns(**columns)
    frame = frame.cast(dict(logprobs_schema()))  # type: ignore[arg-type]
    path = folder / "score-00000.parquet"
    write_parquet(frame, path, table="logprobs", shape=RecordShape(), metadata={})
    return folder


# --- scoring


def test_scores_are_the_teachers_logprobs_of_each_target(scored: Path) -> None:
    frame = pl.read_parquet(scored)
    example = EXAMPLES[0]
    inputs = {"input_ids": torch.tensor(example.input_ids[None].astype("int64"))}
    expected = TEACHER(inputs).logits_BTV[0, :-1, :TOKENS].log_softmax(-1)[example.is_target[1:]].topk(K)

    row = frame.row(0, named=True)

    assert row["top_ids"] == expected.indices.tolist()
    torch.testing.assert_close(torch.tensor(row["top_logprobs"]), expected.values)


def test_scores_cover_the_end_token(scored: Path) -> None:
    frame = pl.read_parquet(scored)

    assert {row[-1] for row in frame["token_ids"]} == {FORMAT.stop_id}
    assert frame["tokens"][0].to_list()[:2] == FORMAT.tokenizer.batch_decode(
        [[one] for one in frame["token_ids"][0].to_list()[:2]]
    )


def test_no_padded_column_is_ever_a_token(scored: Path) -> None:
    frame = pl.read_parquet(scored)

    assert frame["top_ids"].explode().explode().max() < TOKENS  # type: ignore[operator]


def test_batches_change_no_score() -> None:
    one = pl.concat(score(EXAMPLES, TEACHER, FORMAT, name="t", k=K, rows=1))
    three = pl.concat(score(EXAMPLES, TEACHER, FORMAT, name="t", k=K, rows=3))

    assert one["top_ids"].to_list() == three["top_ids"].to_list()
    flat = [torch.tensor(frame["top_logprobs"].explode().explode().to_list()) for frame in (one, three)]
    torch.testing.assert_close(*flat)


def test_more_alternatives_than_tokens_are_refused() -> None:
    with pytest.raises(UsageError, match="the teacher has"):
        list(score(EXAMPLES, TEACHER, FORMAT, name="t", k=TOKENS + 1))


# --- end to end


def test_a_student_learns_from_stored_scores(scored: Path) -> None:
    captures = read_captures(scored)
    captures.require_tokenizer(FORMAT.tokenizer)
    labelled = soften(EXAMPLES, captures, FORMAT.tokenizer, k=K)
    batch = collate(labelled.examples, FORMAT.pad_id)
    student = tiny_llama(TOKENS, seed=2)
    optimizer = torch.optim.AdamW(student.parameters(), lr=5e-3)
    objective = Distillation(LossConfig.model_validate({"kd": {"weight": 1.0, "k": K}}))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    targets = int((batch["labels"][:, 1:] != IGNORED).sum())
    losses = []

    for _ in range(60):
        optimizer.zero_grad()
        extras = {name: batch[name] for name in ("kd_ids", "kd_logprobs")}
        loss = objective(Forward(student(**inputs).logits, batch["labels"], targets, inputs, extras))
        loss.value.backward()
        optimizer.step()
        losses.append(loss.parts["kd"].item())

    assert losses[-1] < 0.2 * losses[0]


# --- alignment


def test_soft_labels_stand_at_the_token_they_were_given_for(scored: Path) -> None:
    labelled = soften(EXAMPLES, read_captures(scored), FORMAT.tokenizer, k=K + 1)

    assert (labelled.soft, sum(labelled.misfits.values())) == (3, 0)
    for example in labelled.examples:
        assert example.soft is not None
        targets = example.input_ids[example.is_target]
        assert all(one in known for one, known in zip(targets, example.soft.ids_SK, strict=True))


def test_fewer_alternatives_are_the_likeliest(scored: Path) -> None:
    captures = read_captures(scored)
    (many, few) = (soften(EXAMPLES, captures, FORMAT.tokenizer, k=k).examples[0].soft for k in (K, 2))

    assert many is not None
    assert few is not None
    assert few.ids_SK.tolist() == many.ids_SK[:, :2].tolist()


def test_a_capture_without_the_end_token_fits(scored: Path) -> None:
    shorter = {
        name: pl.col(name).list.head(pl.col(name).list.len() - 1)
        for name in (
            "token_ids",
            "logprobs",
            "top_ids",
            "top_logprobs",
            "tokens",
            "top_tokens",
            "token_bytes",
        )
    }

    labelled = soften(EXAMPLES, read_captures(rewritten(scored, **shorter)), FORMAT.tokenizer, k=K)

    assert labelled.soft == 3
    assert all(
        example.soft is not None and (example.soft.ids_SK[-1] == -1).all() for example in labelled.examples
    )


@pytest.mark.parametrize(("unaligned", "left"), [("drop", 2), ("labels", 3)])
def test_another_answer_is_a_misfit(scored: Path, unaligned: str, left: int) -> None:
    edited = [*EXAMPLES[:2], *(Example(e.input_ids, e.spans, "r2", "r2") for e in examples("Paris!"))]

    labelled = soften(edited, read_captures(scored), FORMAT.tokenizer, k=K, unaligned=unaligned)  # type: ignore[arg-type]

    assert dict(labelled.misfits) == {"other_text": 1}
    assert len(labelled.examples) == left


def test_the_same_words_in_other_tokens_are_a_misfit(scored: Path) -> None:
    split = [FORMAT.tokenizer.convert_tokens_to_ids(letter) for letter in "Really?"]
    ids = [*split, FORMAT.stop_id]
    other = {
        "token_ids": pl.when(pl.col("id") == "r2").then(pl.lit(ids, pl.List(pl.Int32))).otherwise("token_ids")
    }

    labelled = soften(EXAMPLES, read_captures(rewritten(scored, **other)), FORMAT.tokenizer, k=K)

    assert dict(labelled.misfits) == {"other_split": 1}


def test_a_record_nobody_captured_is_a_misfit(scored: Path) -> None:
    more = [*EXAMPLES, *(Example(e.input_ids, e.spans, "r9", "r9") for e in examples("Paris!"))]

    assert dict(soften(more, read_captures(scored), FORMAT.tokenizer, k=K).misfits) == {"no_capture": 1}


def test_nothing_that_fits_is_an_error(scored: Path) -> None:
    with pytest.raises(UsageError, match=r"no captured reply fits its record \(1 no_capture\)"):
        soften(
            [Example(EXAMPLES[0].input_ids, EXAMPLES[0].spans, "x")],
            read_captures(scored),
            FORMAT.tokenizer,
            k=K,
        )


def test_ids_beyond_the_vocabulary_are_a_misfit(scored: Path) -> None:
    beyond = {"top_ids": pl.col("top_ids").list.eval(pl.element().list.eval(pl.element() + TOKENS))}

    with pytest.raises(UsageError, match="3 unknown_id"):
        soften(EXAMPLES, read_captures(rewritten(scored, **beyond)), FORMAT.tokenizer, k=K)


def test_equal_turns_keep_their_own_scores(tmp_path: Path) -> None:
    said = [
        Message("user", "Where?"),
        Message("assistant", "Paris."),
        Message("user", "Really?"),
        Message("assistant", "Paris."),
    ]
    (example,) = mask([Conversation(tuple(said), (True,) * 4, id="a")], FORMAT, DataConfig())
    assert isinstance(example, Example)
    write_scores(score([example], TEACHER, FORMAT, name="tiny", k=K), tmp_path, FORMAT)
    rows = pl.read_parquet(tmp_path)["top_logprobs"].to_list()
    assert rows[0] != rows[1]

    (labelled,) = soften([example], read_captures(tmp_path), FORMAT.tokenizer, k=K).examples

    assert labelled.soft is not None
    assert labelled.soft.logprobs_SK.tolist() == [*rows[0], *rows[1]]


# --- what is refused


def test_captures_without_ids_are_refused_with_the_way_out(scored: Path) -> None:
    with pytest.raises(UsageError, match="hold no token ids") as caught:
        read_captures(rewritten(scored, ids_complete=pl.lit(False)))

    assert all(word in str(caught.value) for word in ("sequence-level", "ULD", "synthgen train score"))


def test_a_folder_without_captures_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="synthgen train score"):
        read_captures(tmp_path)


def test_captures_of_an_unnamed_tokenizer_are_refused(scored: Path) -> None:
    captures = read_captures(rewritten(scored, tokenizer=pl.lit(None, pl.String)))

    with pytest.raises(UsageError, match="do not say whose token ids"):
        captures.require_tokenizer(FORMAT.tokenizer)


def test_captures_of_another_tokenizer_are_refused(scored: Path, tmp_path: Path) -> None:
    other = tokenizer("chatml")
    other.add_tokens([AddedToken("<think>")])
    other.save_pretrained(tmp_path / "teacher")
    captures = read_captures(rewritten(scored, tokenizer=pl.lit(str(tmp_path / "teacher"))))

    with pytest.raises(UsageError, match="1 only the teacher has") as caught:
        captures.require_tokenizer(FORMAT.tokenizer)

    assert all(word in str(caught.value) for word in ("'<think>'", "sequence-level", "ULD"))


def test_a_tokenizer_that_cannot_be_loaded_proves_nothing(scored: Path, tmp_path: Path) -> None:
    captures = read_captures(rewritten(scored))

    with pytest.raises(UsageError, match="nothing proves that captured ids are the student's"):
        captures.require_tokenizer(FORMAT.tokenizer, named=str(tmp_path / "nowhere"))


def test_captures_of_the_same_tokenizer_pass(scored: Path, tmp_path: Path) -> None:
    FORMAT.tokenizer.save_pretrained(tmp_path / "teacher")
    captures = read_captures(rewritten(scored, tokenizer=pl.lit(str(tmp_path / "teacher"))))

    captures.require_tokenizer(FORMAT.tokenizer)


def test_the_digest_ignores_padding_and_the_chat_template() -> None:
    other = tokenizer("chatml")
    other("a", padding="max_length", max_length=8)
    other.chat_template = "{{ 1 }}"

    assert tokenizer_digest(other) == tokenizer_digest(FORMAT.tokenizer)


def test_other_control_tokens_are_another_tokenizer() -> None:
    with pytest.raises(UsageError, match="tokens against"):
        require_same(tokenizer("llama3"), FORMAT.tokenizer)


def test_a_file_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("{}")

    with pytest.raises(UsageError, match="model: is a file; name the folder of a checkpoint"):
        load_tokenizer(str(tmp_path / "model"))
