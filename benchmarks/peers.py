"""Other people's tools on the same prompts: one process each, in a virtual environment of their own.

`PYTHON benchmarks/peers.py curator|data-designer|distilabel URL PROMPTS.jsonl IN_FLIGHT`: answer every prompt once and
keep the result in the tool's own format. Each is set up as its documentation says, with its limits as high as they go,
its health checks and telemetry off; whoever runs it measures it.
"""

import os
import sys
import tempfile
from pathlib import Path

OFF = {
    "TELEMETRY_ENABLED": "false",
    "CURATOR_VIEWER": "0",
    "NEMO_TELEMETRY_ENABLED": "false",
    "HF_HUB_OFFLINE": "1",
}
ENOUGH = 2**31


def with_curator(url: str, prompts: str, in_flight: int, folder: str) -> int:
    """bespokelabs-curator counts tokens with a vocabulary it would download; litellm, which it needs, carries it."""
    import importlib.util

    spec = importlib.util.find_spec("litellm")
    assert spec is not None
    assert spec.origin is not None
    tokenizers = Path(spec.origin).parent / "litellm_core_utils" / "tokenizers"
    os.environ |= {"TIKTOKEN_CACHE_DIR": str(tokenizers), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    from bespokelabs import curator
    from datasets import load_dataset

    class Answer(curator.LLM):
        def prompt(self, row: dict[str, str]) -> str:
            return row["instruction"]

        def parse(self, row: dict[str, str], response: str) -> dict[str, str]:
            return {"instruction": row["instruction"], "response": response}

    llm = Answer(
        model_name="bench",
        backend="openai",
        generation_params={"max_tokens": 512},
        backend_params={
            "base_url": url,
            "api_key": "none",
            "max_concurrent_requests": in_flight,
            "max_requests_per_minute": ENOUGH,
            "max_tokens_per_minute": ENOUGH,
        },
    )
    rows = load_dataset("json", data_files=prompts, split="train", cache_dir=f"{folder}/hf")
    return len(llm(rows, working_dir=f"{folder}/curator").dataset)


def with_data_designer(url: str, prompts: str, in_flight: int, folder: str) -> int:
    """NVIDIA's data-designer, one text column over a seed data set."""
    import data_designer.config as dd
    from data_designer.interface import DataDesigner

    provider = dd.ModelProvider(name="bench", endpoint=url, provider_type="openai", api_key="none")
    parameters = dd.ChatCompletionInferenceParams(max_tokens=512, max_parallel_requests=in_flight)
    model = dd.ModelConfig(
        alias="bench",
        model="bench",
        provider="bench",
        inference_parameters=parameters,
        skip_health_check=True,
    )
    config = dd.DataDesignerConfigBuilder(model_configs=[model])
    config.with_seed_dataset(dd.LocalFileSeedSource(path=prompts))
    config.add_column(
        dd.LLMTextColumnConfig(name="response", prompt="{{ instruction }}", model_alias="bench")
    )
    designer = DataDesigner(artifact_path=folder, model_providers=[provider])
    with Path(prompts).open("rb") as file:
        count = sum(1 for _ in file)
    return len(designer.create(config, num_records=count, dataset_name="bench").load_dataset())


def with_distilabel(url: str, prompts: str, in_flight: int, folder: str) -> int:
    """distilabel's pipeline of one task; it sends a batch at a time."""
    import json

    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    with Path(prompts).open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    with Pipeline(name="bench", cache_dir=folder) as pipeline:
        load = LoadDataFromDicts(data=rows, batch_size=in_flight)
        llm = OpenAILLM(
            model="bench", base_url=url, api_key="none", generation_kwargs={"max_new_tokens": 512}
        )
        load >> TextGeneration(llm=llm, input_batch_size=in_flight)
    return len(pipeline.run(use_cache=False)["default"]["train"])


def main() -> None:
    """Command line."""
    kind, url, prompts, in_flight = sys.argv[1:5]
    os.environ |= OFF
    work = {"curator": with_curator, "data-designer": with_data_designer, "distilabel": with_distilabel}[kind]
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"HF_HOME": f"{folder}/home", "CURATOR_CACHE_DIR": f"{folder}/cache"}
        print(work(url, prompts, int(in_flight), folder), "rows")


if __name__ == "__main__":
    main()
