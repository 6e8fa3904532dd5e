"""Writes a checkpoint as a folder in OpenVINO's format, which `provider: local` loads.

In: a checkpoint `gguf_file` can write. Out: a folder with the graph, its tokenizer and the checkpoint's own
`config.json` and `generation_config.json`. Guarantees: the folder appears when whole; nothing is reported to a vendor.
"""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from synthgen.errors import UsageError
from synthgen.train.export.gguf_file import write_gguf

__all__ = ["OPENVINO_TYPES", "OpenvinoType", "write_openvino"]

OpenvinoType = Literal["fp16", "int8", "int4"]
OPENVINO_TYPES: tuple[OpenvinoType, ...] = ("fp16", "int8", "int4")


def write_openvino(checkpoint: Path, folder: Path, kind: OpenvinoType) -> None:
    """Write `checkpoint` into the new `folder`; int8 and int4 are the weights, computed on the CPU without data.

    Raises:
        UsageError: the folder exists, a package is missing, or the checkpoint cannot be written.
    """
    wanted = {"openvino_genai": "synthgen[local]"}
    if kind != "fp16":
        wanted["nncf"] = "nncf"
    for module, package in wanted.items():
        if importlib.util.find_spec(module) is None:
            raise UsageError(f"export to OpenVINO {kind} needs {package}: pip install '{package}'")
    if folder.exists():
        raise UsageError(f"{folder} exists; name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as scratch:
        built = Path(scratch) / "model"
        built.mkdir()
        source = built / "model.gguf"
        write_gguf(checkpoint, source, "f16")
        command = [
            sys.executable,
            "-m",
            "synthgen.train.export.openvino_worker",
            str(source),
            str(built),
            kind,
        ]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            raise UsageError(
                f"{checkpoint}: OpenVINO {kind}: {said[-1] if said else f'ended with {done.returncode}'}"
            )
        source.unlink()
        for name in ("config.json", "generation_config.json"):
            if (checkpoint / name).is_file():
                shutil.copyfile(checkpoint / name, built / name)
        built.rename(folder)
