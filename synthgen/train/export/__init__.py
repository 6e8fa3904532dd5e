"""A student in the formats of the engines that serve it.

    checkpoint ── gguf_file.py ──► student.gguf ── openvino_model.py ──► folder for OpenVINO (fp16, int8, int4)
        └──────────────────────── agreement.py: the same prompts to both, before anybody uses it

In: a merged checkpoint in the Hugging Face format. Out: one file or folder a format, and how often it answers like the
checkpoint it was made from. Guarantees: what cannot be represented is refused, by name; a file appears when whole.
Rejected: optimum-intel 2.2 for OpenVINO (it pins transformers below 5.6, TRL wants later ones): OpenVINO GenAI builds
the same graph from a GGUF file and saves it. llama.cpp's script for GGUF (it comes with no package of its makers).
"""
