"""Exports of a student, read back by programs that are not ours: transformers' GGUF reader and OpenVINO."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from synthgen.asking.local import LocalTeacher, LocalTeacherConfig
from synthgen.asking.outcome import Answer
from synthgen.errors import UsageError
from synthgen.train.export.agreement import compare
from synthgen.train.export.gguf_file import write_gguf
from synthgen.train.export.story import export_student
from synthgen.types import Message, Request, Sampling, TeacherIdentity

TEXT = ["The quick brown fox jumps over the lazy dog 0123456789, isn't it?"] * 4
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def tiny(folder: Path, config: type[PreTrainedConfig] = LlamaConfig, **more: object) -> Path:
    """A checkpoint with random weights and a byte-level BPE tokenizer."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trained.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=300, special_tokens=specials, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained, eos_token="<|im_end|>", pad_token="<|im_end|>", bos_token="<|im_start|>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.eos_token_id}
    settings = {**SIZES, "vocab_size": len(tokenizer), "bos_token_id": 1, **ids, **more}
    AutoModelForCausalLM.from_config(config(**settings)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("config", [LlamaConfig, Qwen3Config])
@pytest.mark.parametrize("tied", [True, False])
def test_another_reader_computes_the_same_from_the_gguf_file(
    tmp_path: Path, config: type[PreTrainedConfig], tied: bool
) -> None:
    checkpoint = tiny(tmp_path / "student", config, tie_word_embeddings=tied, head_dim=128)

    write_gguf(checkpoint, tmp_path / "student.gguf", "f16")

    file = {"gguf_file": "student.gguf"}
    ids = torch.arange(3, 40)[None]
    ours = AutoModelForCausalLM.from_pretrained(checkpoint)(ids).logits
    read = AutoModelForCausalLM.from_pretrained(
        tmp_path, **file, dtype=torch.float32, quantization_config=GgufConfig(**file, dequantize=True)
    )
    assert torch.allclose(read(ids).logits, ours, atol=5e-3)


def test_the_tokenizer_of_the_gguf_file_cuts_like_the_checkpoints(tmp_path: Path) -> None:
    checkpoint = tiny(tmp_path / "student")

    write_gguf(checkpoint, tmp_path / "student.gguf", "q8_0")

    read = AutoTokenizer.from_pretrained(tmp_path, gguf_file="student.gguf")
    text = "<|im_start|>user\nIt isn't the quick fox 123<|im_end|>"
    assert read(text)["input_ids"] == AutoTokenizer.from_pretrained(checkpoint)(text)["input_ids"]


def test_an_architecture_that_is_not_known_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    checkpoint = tiny(tmp_path / "student")
    config = (
        (checkpoint / "config.json").read_text().replace('"model_type": "llama"', '"model_type": "mamba"')
    )
    (checkpoint / "config.json").write_text(config)

    with pytest.raises(UsageError, match="model_type 'mamba' is not supported"):
        write_gguf(checkpoint, tmp_path / "student.gguf", "f16")

    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_scaled_rotations_are_refused(tmp_path: Path) -> None:
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    checkpoint = tiny(tmp_path / "student", rope_parameters=scaled)

    with pytest.raises(UsageError, match="rotary scaling 'linear'"):
        write_gguf(checkpoint, tmp_path / "student.gguf", "f16")


def test_a_tokenizer_that_splits_by_an_unknown_pattern_is_refused(tmp_path: Path) -> None:
    checkpoint = tiny(tmp_path / "student")
    file = checkpoint / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(file))

    with pytest.raises(UsageError, match="splits text in a way"):
        write_gguf(checkpoint, tmp_path / "student.gguf", "f16")


def test_the_openvino_folder_answers_like_the_checkpoint(tmp_path: Path) -> None:
    checkpoint = tiny(tmp_path / "student")
    prompts = [[Message("user", f"the {word}")] for word in ("fox", "dog", "quick")]

    report = export_student(
        checkpoint, tmp_path / "served", "openvino:fp16", prompts=prompts, least=1.0, max_tokens=8
    )

    assert report.agreement is not None
    assert (report.agreement.same, report.agreement.prompts) == (3, 3)
    assert (tmp_path / "served.export.json").is_file()


def test_the_export_of_another_model_does_not_agree(tmp_path: Path) -> None:
    checkpoint = tiny(tmp_path / "student")
    other = tiny(tmp_path / "other", rms_norm_eps=0.5, tie_word_embeddings=True)
    write_gguf(other, tmp_path / "other.gguf", "f16")

    agreement = compare(checkpoint, tmp_path / "other.gguf", [[Message("user", "the fox")]], max_tokens=8)

    assert agreement.same == 0
    assert agreement.differences[0].prompt == "the fox"


def test_a_format_is_named_with_its_neighbour(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown format 'openvino:int5'.*openvino:int4"):
        export_student(tmp_path, tmp_path / "x", "openvino:int5")


async def test_a_student_writes_ahead_for_its_teacher(tmp_path: Path) -> None:
    """Speculative decoding: the draft's tokens are checked, so greedy answers are the model's own."""
    for name, seed in (("teacher", 8), ("student", 4)):
        export_student(tiny(tmp_path / name, hidden_size=8 * seed), tmp_path / f"{name}.ov", "openvino:fp16")
    who = TeacherIdentity(provider="local", route="local", pool="x", model="x")
    asked = [
        Request((Message("user", text),), who, Sampling(temperature=0.0, max_tokens=12)) for text in TEXT[:1]
    ]
    texts = []
    for draft in (None, str(tmp_path / "student.ov")):
        config = LocalTeacherConfig(provider="local", model=str(tmp_path / "teacher.ov"), draft=draft)
        teacher = LocalTeacher(config)
        try:
            outcomes = [await teacher.answer(one) for one in asked]
        finally:
            await teacher.close()
        texts.append([outcome.completion.text for outcome in outcomes if isinstance(outcome, Answer)])

    assert len(texts[0]) == 1
    assert texts[0] == texts[1]
