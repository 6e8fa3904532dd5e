"""What a dataset says of itself, read by the tools that read such things: Croissant, SPDX, the hub, Parquet."""

import io
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import mlcroissant
import orjson
import polars as pl
import pytest
import yaml
from huggingface_hub import DatasetCard, DatasetCardData
from spdx_python_model import v3_0_1 as spdx3

from synthgen import api
from synthgen.dataset import read_manifest, verify
from synthgen.policy.emit import HUB_LICENSES
from tests.described import LLAMA, made, rows_file

# mlcroissant 1.1 uses what rdflib 7.6 and pandas 3.1 deprecate.
pytestmark = [
    pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated"),
    pytest.mark.filterwarnings("ignore:The inplace keyword"),
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty answers of Llama 3.3 to questions under CC-BY-4.0, in several shards."""
    folder = tmp_path_factory.mktemp("described")
    return made(folder / "out", rows_file(folder / "in.jsonl"))


def _json(path: Path) -> Any:
    return orjson.loads(path.read_bytes())


def _spdx(content: bytes) -> spdx3.SHACLObjectSet:
    """The document as the bindings generated from the SPDX model read it: unknown classes, properties, values fail."""
    objects = spdx3.SHACLObjectSet()
    spdx3.JSONLDDeserializer().read(io.BytesIO(content), objects)
    return objects


# Croissant


def test_croissant_validates_without_error(dataset: Path) -> None:
    issues = mlcroissant.Dataset(str(dataset / "croissant.json")).metadata.ctx.issues

    assert sorted(issues.errors) == []
    # What it recommends and nobody told us: how to cite the dataset, and its version.
    assert [
        line for line in issues.warnings if "citeAs" not in line and "schema.org/version" not in line
    ] == []


def test_rows_are_read_through_croissant(dataset: Path) -> None:
    rows = list(mlcroissant.Dataset(str(dataset / "croissant.json")).records("train"))

    assert len(rows) == pl.read_parquet(dataset / "data/train-*.parquet").height
    assert rows[0]["train/messages"][0]["train/messages/role"] == b"user"
    assert rows[0]["train/teacher"] == LLAMA.partition("@")[0].encode()


def test_croissant_names_every_shard_with_its_hash(dataset: Path) -> None:
    files = [f for f in _json(dataset / "croissant.json")["distribution"] if f["@type"] == "cr:FileObject"]

    shards = (path.relative_to(dataset).as_posix() for path in (dataset / "data").iterdir())
    assert [f["contentUrl"] for f in files] == sorted(shards)
    for file in files:
        content = (dataset / file["contentUrl"]).read_bytes()
        assert file["sha256"] == sha256(content).hexdigest()
        assert file["contentSize"] == f"{len(content)} B"


def test_croissant_says_who_wrote_the_rows_from_what_and_for_what(dataset: Path) -> None:
    document = _json(dataset / "croissant.json")

    (made_by,) = document["prov:wasGeneratedBy"]
    assert (
        made_by["prov:wasAttributedTo"]["@id"] == "https://huggingface.co/meta-llama/Llama-3.3-70B-Instruct"
    )
    assert document["prov:wasDerivedFrom"][0]["sc:license"] == "CC-BY-4.0"
    fields = {field["name"]: field for field in document["recordSet"][0]["field"]}
    assert fields["teacher"]["equivalentProperty"] == "prov:wasAttributedTo"
    offer = document["usageInfo"]
    assert offer["@type"] == "odrl:Offer"
    assert "train-general" in {entry["odrl:action"] for entry in offer["odrl:permission"]}
    assert {"odrl:action": "AUP:llama3.3"} in offer["odrl:obligation"]
    assert document["rai:dataCollectionType"] == ["Synthetic data"]
    assert document["datePublished"] == "2026-11-21"


def test_croissant_keeps_responsible_ai_fields_through_the_library(dataset: Path) -> None:
    metadata = mlcroissant.Dataset(str(dataset / "croissant.json")).metadata

    assert metadata.data_collection_type == ["Synthetic data"]
    assert any("machine-generated" in limit for limit in metadata.data_limitations)


def test_a_column_croissant_does_not_know_is_left_out_of_it(dataset: Path) -> None:
    columns = set(pl.read_parquet(dataset / "data/train-*.parquet").columns)

    (train, _) = _json(dataset / "croissant.json")["recordSet"]

    assert {field["name"] for field in train["field"]} <= columns


# SPDX


def test_spdx_is_read_by_the_bindings_of_its_model(dataset: Path) -> None:
    objects = _spdx((dataset / "spdx.json").read_bytes())

    (package,) = objects.foreach_type(spdx3.dataset_DatasetPackage)
    (model,) = objects.foreach_type(spdx3.ai_AIPackage)
    assert package.dataset_datasetSize == 30
    assert package.dataset_intendedUse == "publish-dataset, train-general"
    assert model.name == "meta-llama/Llama-3.3-70B-Instruct"
    # Serialising checks what reading does not: that nothing mandatory is missing.
    spdx3.JSONLDSerializer().write(objects, io.BytesIO())


def test_spdx_bindings_refuse_what_the_model_does_not_have(dataset: Path) -> None:
    document = _json(dataset / "spdx.json")
    package = next(e for e in document["@graph"] if e["type"] == "dataset_DatasetPackage")
    package["dataset_datasetType"] = ["synthetic"]

    with pytest.raises(ValueError, match="synthetic"):
        _spdx(orjson.dumps(document))


def test_spdx_has_what_its_dataset_and_ai_profiles_want(dataset: Path) -> None:
    graph = _json(dataset / "spdx.json")["@graph"]
    packages = [e for e in graph if e["type"] in ("dataset_DatasetPackage", "ai_AIPackage")]

    for package in packages:
        wanted = {"releaseTime", "software_downloadLocation", "software_primaryPurpose"}
        wanted |= {"originatedBy", "builtTime"} if "Dataset" in package["type"] else {"suppliedBy"}
        assert wanted <= set(package)
        for kind in ("hasDeclaredLicense", "hasConcludedLicense"):
            found = [e for e in graph if e.get("relationshipType") == kind and e["from"] == package["spdxId"]]
            assert len(found) == 1


def test_spdx_says_that_the_teacher_generates_and_the_shards_are_files(dataset: Path) -> None:
    graph = _json(dataset / "spdx.json")["@graph"]
    by_id = {e["spdxId"]: e for e in graph if "spdxId" in e}
    found = {
        (by_id[e["from"]]["type"], e["relationshipType"], by_id[e["to"][0]]["type"])
        for e in graph
        if e["type"] == "Relationship" and e["to"][0] in by_id
    }

    assert ("ai_AIPackage", "generates", "dataset_DatasetPackage") in found
    assert ("dataset_DatasetPackage", "hasDataFile", "software_File") in found
    assert len([e for e in graph if e["type"] == "software_File"]) == len(list((dataset / "data").iterdir()))


def test_spdx_lists_a_student_trained_on_the_rows(dataset: Path) -> None:
    content = api.policy_export(dataset, "spdx", student="acme/Llama-acme-1")

    graph = orjson.loads(content)["@graph"]
    (trained,) = [e for e in graph if e.get("relationshipType") == "trainedOn"]
    assert [e["name"] for e in graph if e.get("spdxId") == trained["from"]] == ["acme/Llama-acme-1"]
    spdx3.JSONLDSerializer().write(_spdx(content), io.BytesIO())


# The hub


def test_front_matter_is_a_dataset_card_of_the_hubs_library(dataset: Path) -> None:
    card = DatasetCard((dataset / "README.md").read_text(encoding="utf-8"))

    assert isinstance(card.data, DatasetCardData)
    assert card.data.license == "other"
    assert card.data.license_name == "cc-by-4.0-and-licenseref-synthgen-llama3.3-outputs"
    assert (dataset / card.data.license_link).is_file()
    assert card.data.language_creators == ["machine-generated"]
    assert {"synthetic", "synthgen:teacher:meta-llama/Llama-3.3-70B-Instruct"} <= set(card.data.tags)
    # What the library writes from its own fields is what we wrote.
    assert yaml.safe_load(card.data.to_yaml()) == yaml.safe_load(
        (dataset / "README.md").read_text().split("---\n")[1]
    )


def test_a_single_licence_the_hub_knows_is_named_by_its_id(tmp_path: Path) -> None:
    out = made(tmp_path / "out", rows_file(tmp_path / "in.jsonl"), row_license="own")

    card = DatasetCard((out / "README.md").read_text(encoding="utf-8"))

    assert card.data.license == "llama3.3"
    assert card.data.license in HUB_LICENSES


# Parquet


def test_every_shard_carries_the_decision(dataset: Path) -> None:
    for shard in (dataset / "data").iterdir():
        metadata = pl.read_parquet_metadata(shard)
        text = metadata["synthgen.policy"]
        assert metadata["synthgen.policy.sha256"] == sha256(text.encode()).hexdigest()
        decision = json.loads(text)
        assert decision["decision"] == "allow_with_obligations"
        assert decision["uses"] == ["publish-dataset", "train-general"]
        assert decision["parts"][0]["licences"] == ["llama3.3"]


def test_policy_survives_a_polars_rewrite_through_the_row_column(dataset: Path, tmp_path: Path) -> None:
    copy = tmp_path / "rewritten.parquet"
    pl.read_parquet(dataset / "data/*.parquet").sample(fraction=0.5, seed=1).write_parquet(copy)

    rows = pl.read_parquet(copy)

    assert "synthgen.policy" not in pl.read_parquet_metadata(copy)
    parts = {part["policy_id"]: part for part in _json(dataset / "POLICY.json")["parts"]}
    assert [parts[row]["model"] for row in rows["policy_id"].unique()] == [LLAMA.partition("@")[0]]
    assert set(rows["row_license"]) == {"CC-BY-4.0"}
    assert set(rows["seed_relation"]) == {"adapted"}
    assert set(rows["generation"]) == {1}


# The folder


def test_manifest_lists_every_file_of_the_publication(dataset: Path) -> None:
    listed = set(read_manifest(dataset)["files"])  # type: ignore[arg-type]  # an object of files
    there = {p.relative_to(dataset).as_posix() for p in dataset.rglob("*") if p.is_file()}

    assert there - listed == {"manifest.json"}
    assert {
        "POLICY.json",
        "OBLIGATIONS.md",
        "NOTICE",
        "LICENSES/README.md",
        "croissant.json",
        "spdx.json",
    } <= listed
    assert verify(dataset) == []


def test_the_same_input_gives_the_same_bytes(dataset: Path, tmp_path: Path) -> None:
    again = made(tmp_path / "out", dataset.parent / "in.jsonl")

    names = [p.relative_to(dataset) for p in dataset.rglob("*") if p.is_file()]
    differ = [str(name) for name in names if (dataset / name).read_bytes() != (again / name).read_bytes()]

    assert differ == []


def test_sources_that_want_attribution_are_named_in_notice(dataset: Path) -> None:
    notice = (dataset / "NOTICE").read_text()

    assert "Source texts: CC-BY-4.0" in notice
    assert "Source of rows: " in notice
    assert "in.jsonl" in notice


def test_card_tells_what_may_be_done_with_the_rows(dataset: Path) -> None:
    card = (dataset / "README.md").read_text()
    permitted, barred = card.split("### Permitted downstream uses")[1].split("### Barred downstream uses")

    assert "| publish-weights | allow_with_obligations |" in permitted
    assert "NAME-PREFIX:Llama" in permitted
    assert "publish-weights" not in barred


def test_card_has_the_block_on_synthetic_data_for_the_ai_act(dataset: Path) -> None:
    block = (dataset / "README.md").read_text().split("### Summary of training content")[1]

    assert "| models that generated it | meta-llama/Llama-3.3-70B-Instruct by self-hosted |" in block
    assert "| source texts | CC-BY-4.0 (adapted) |" in block
    summary = orjson.loads(api.policy_export(dataset, "ai-act"))
    assert summary["synthetic_data"]["modality"] == "text"
    assert summary["files"] == {
        file["contentUrl"]: file["sha256"]
        for file in _json(dataset / "croissant.json")["distribution"]
        if file["@type"] == "cr:FileObject"
    }


def test_what_nobody_evaluated_says_so_and_gives_no_licence(tmp_path: Path) -> None:
    out = made(tmp_path / "out", rows_file(tmp_path / "in.jsonl"), use=(), origin=None)

    document = _json(out / "croissant.json")
    assert "license" not in document
    assert "usageInfo" not in document
    assert mlcroissant.Dataset(str(out / "croissant.json")).metadata.ctx.issues.errors == set()
    _spdx((out / "spdx.json").read_bytes())
    assert not (out / "POLICY.json").exists()
    assert {pl.read_parquet_metadata(p)["synthgen.policy"] for p in (out / "data").iterdir()} == {
        "unevaluated"
    }
