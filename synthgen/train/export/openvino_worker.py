"""Makes a folder in OpenVINO's format of a GGUF file: `python -m synthgen.train.export.openvino_worker GGUF FOLDER KIND`.

In: a GGUF file with 16-bit weights. Out: `openvino_model.xml`, tokenizer and detokenizer in FOLDER, weights as KIND says.
A process of its own for the reason given in `synthgen.asking.local_worker`: importing OpenVINO reports to its vendor
unless the telemetry package cannot be imported. Errors end it with a traceback; the last line is what went wrong.
"""

import sys
from pathlib import Path

# See `synthgen.asking.local_worker`; NNCF asks the same package.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

__all__ = ["main"]

# Group size and mode are those OpenVINO's own model zoo uses for language models of this size (optimum-intel's
# defaults for int4): asymmetric, 128 weights a scale, smaller where the width asks for it; head and embedding in int8.
_GROUPS = (128, 64, 32)


def main(gguf: str, folder: str, kind: str) -> None:
    """Build, compress, save. The GGUF file must lie in FOLDER: OpenVINO GenAI saves the graph beside it."""
    import openvino_genai

    pipeline = openvino_genai.LLMPipeline(gguf, "CPU", enable_save_ov_model=True)
    del pipeline
    if kind == "fp16":
        return
    import nncf
    import openvino

    path = Path(folder) / "openvino_model.xml"
    model = openvino.Core().read_model(path)  # type: ignore[attr-defined]  # its names are made at run time
    if kind == "int8":
        model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
    else:
        model = nncf.compress_weights(
            model, mode=nncf.CompressWeightsMode.INT4_ASYM, group_size=_group_size(model), ratio=1.0
        )
    small = path.with_name("compressed.xml")
    openvino.save_model(model, small)  # type: ignore[attr-defined]
    del model  # it holds the old weights mapped
    small.with_suffix(".bin").replace(path.with_suffix(".bin"))
    small.replace(path)


def _group_size(model: object) -> int:
    """The largest usual group that divides every inner width, so that no layer is left in more bits."""
    widths = {
        node.input(1).get_shape()[-1]
        for node in model.get_ops()  # type: ignore[attr-defined]  # openvino ships no types for it
        if node.get_type_name() == "MatMul" and node.input(1).get_partial_shape().is_static
    }
    wide = [width for width in widths if width > 128]
    return next((group for group in _GROUPS if all(width % group == 0 for width in wide)), -1)


if __name__ == "__main__":
    main(*sys.argv[1:])
