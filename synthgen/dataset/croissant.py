"""`croissant.json`: the dataset for machines that look for data, in Croissant 1.1 with its RAI and provenance terms.

In: a `CardInfo`. Out: a JSON-LD document. Guarantees: equal input, equal document; every shard of `data/` is listed
with its hash; `mlcroissant` validates it without an error and reads the rows through it. Who wrote what is
`prov:wasGeneratedBy`, what may be done with it `usageInfo` as an `odrl:Offer`.
Rejected: building it with `mlcroissant`. It takes a second to import and brings pandas and rdflib for a
document that is a dict.
Source: Croissant 1.1 and Croissant RAI 1.0 (docs.mlcommons.org/croissant).
"""

from collections.abc import Mapping

from synthgen.dataset.about import CardInfo, CardPolicy, CardTeacher
from synthgen.types import JSONValue

__all__ = ["croissant"]

_WORDS = (
    "citeAs", "column", "dataType", "equivalentProperty", "examples", "extract", "field", "fileObject",
    "fileProperty", "fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path",
    "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
_TYPED: Mapping[str, JSONValue] = {
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
}
_CONTEXT: Mapping[str, JSONValue] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "odrl": "http://www.w3.org/ns/odrl/2/",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    **{word: f"cr:{word}" for word in _WORDS},
    **_TYPED,
}
# mlcroissant 1.1 reads Parquet only under this name, not under the registered application/vnd.apache.parquet.
_PARQUET = "application/x-parquet"
_SPLITS = ("train", "test")
# Columns of a record that a reader of the description is told of; `prov` says what they mean for provenance.
_COLUMNS = ("id", "source", "teacher", "served_model", "route", "row_license", "seed_relation", "policy_id")
_NUMBERS = ("generation",)
_MEANS = {
    "teacher": "prov:wasAttributedTo",
    "source": "prov:wasDerivedFrom",
    "row_license": "https://schema.org/license",
}


def croissant(info: CardInfo) -> dict[str, JSONValue]:
    """The whole document. Needs `info.files`; without a policy decision it says nothing of use or licence."""
    splits = [
        split for split in _SPLITS if any(file.path.startswith(f"data/{split}-") for file in info.files)
    ]
    policy = info.policy
    licensed: dict[str, JSONValue] = {"license": _licences(info)} if info.license else {}
    dated: dict[str, JSONValue] = (
        {"datePublished": policy.evaluated} if policy is not None and policy.evaluated else {}
    )
    return {
        "@context": dict(_CONTEXT),
        "@type": "sc:Dataset",
        "name": info.name,
        "description": info.description or f"Synthetic conversations of the run {info.name}.",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        **licensed,
        **dated,
        **({"inLanguage": list(info.languages)} if info.languages else {}),
        "keywords": ["synthetic", "synthgen", "supervised fine-tuning"],
        "isLiveDataset": False,
        **_responsible(info),
        **_provenance(info),
        **({"usageInfo": _offer(policy)} if policy is not None else {}),
        "distribution": [*_files(info), *(_file_set(split) for split in splits)],
        "recordSet": [_record_set(split, info.columns) for split in splits],
    }


def _licences(info: CardInfo) -> list[JSONValue]:
    """The expression, then the address of every text behind it."""
    texts = [terms.url for terms in info.policy.terms] if info.policy else []
    return [info.license, *dict.fromkeys(texts)]


def _responsible(info: CardInfo) -> dict[str, JSONValue]:
    """The terms of Croissant RAI."""
    tools: list[JSONValue] = [f"synthgen {info.version}", *dict.fromkeys(t.model for t in info.teachers)]
    limits: list[JSONValue] = ["The text is machine-generated; nobody has checked every record."]
    cases: list[JSONValue] = []
    if info.generations and max(info.generations) > 1:
        limits.append(
            "Some rows were written by models that learned from a model's answers; each round loses knowledge."
        )
    if info.policy is not None:
        cases += [f"{use.use}: {use.decision}" for use in info.policy.downstream]
        limits += [f"Owed: {duty}" for duty in info.policy.obligations]
    steps: list[JSONValue] = [*info.filters.steps] if info.filters else []
    return {
        "rai:dataCollection": "Prompts were answered by language models; the answers were filtered and deduplicated.",
        "rai:dataCollectionType": ["Synthetic data"],
        "rai:machineAnnotationTools": tools,
        "rai:dataLimitations": limits,
        **({"rai:dataUseCases": cases} if cases else {}),
        **({"rai:dataPreprocessingProtocol": steps} if steps else {}),
    }


def _provenance(info: CardInfo) -> dict[str, JSONValue]:
    """One activity a model in a role; the licences of source texts as what the rows derive from."""
    made: list[JSONValue] = [_activity(teacher) for teacher in info.teachers]
    seeds: list[JSONValue] = [
        {
            "@type": "prov:Entity",
            "prov:label": f"source texts, {licence}, {relation}",
            "sc:license": licence,
        }
        for licence, relation in sorted(info.seeds or {})
    ]
    return {
        **({"prov:wasGeneratedBy": made} if made else {}),
        **({"prov:wasDerivedFrom": seeds} if seeds else {}),
    }


def _activity(teacher: CardTeacher) -> JSONValue:
    agent: dict[str, JSONValue] = {"@type": "prov:SoftwareAgent", "prov:label": teacher.model}
    if teacher.url:
        agent["@id"] = teacher.url
    return {
        "@type": "prov:Activity",
        "prov:label": f"{teacher.role} {teacher.alias}",
        "prov:atLocation": teacher.route,
        "prov:wasAttributedTo": agent,
    }


def _offer(policy: CardPolicy) -> JSONValue:
    """What is permitted, what is not, and what is owed; `review` counts as prohibited until a person has decided."""
    permitted: list[JSONValue] = []
    prohibited: list[JSONValue] = []
    for use in policy.downstream:
        entry: JSONValue = {"odrl:action": use.use, "sc:description": f"{use.decision}: {use.because}"}
        (permitted if use.decision.startswith("allow") else prohibited).append(entry)
    return {
        "@type": "odrl:Offer",
        "odrl:permission": permitted,
        "odrl:prohibition": prohibited,
        "odrl:obligation": [{"odrl:action": duty} for duty in policy.obligations],
        "sc:description": f"Decided by the rules of {policy.registry_date} for {', '.join(policy.uses)}; "
        "engineering evidence, not legal advice.",
    }


def _files(info: CardInfo) -> list[JSONValue]:
    return [
        {
            "@type": "cr:FileObject",
            "@id": file.path,
            "name": file.path,
            "contentUrl": file.path,
            "contentSize": f"{file.size_bytes} B",
            "encodingFormat": _PARQUET,
            "sha256": file.sha256,
        }
        for file in info.files
    ]


def _file_set(split: str) -> JSONValue:
    return {
        "@type": "cr:FileSet",
        "@id": f"{split}-shards",
        "name": f"{split}-shards",
        "encodingFormat": _PARQUET,
        "includes": f"data/{split}-*.parquet",
    }


def _record_set(split: str, columns: tuple[str, ...]) -> JSONValue:
    kinds = {**dict.fromkeys(_COLUMNS, "sc:Text"), **dict.fromkeys(_NUMBERS, "sc:Integer")}
    fields: list[JSONValue] = [_messages(split)]
    fields += [_field(split, name, kind) for name, kind in kinds.items() if name in columns]
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "key": {"@id": f"{split}/id"},
        "field": fields,
    }


def _field(split: str, column: str, kind: str) -> JSONValue:
    means: dict[str, JSONValue] = {"equivalentProperty": _MEANS[column]} if column in _MEANS else {}
    return {
        "@type": "cr:Field",
        "@id": f"{split}/{column}",
        "name": column,
        "dataType": kind,
        **means,
        "source": {"fileSet": {"@id": f"{split}-shards"}, "extract": {"column": column}},
    }


def _messages(split: str) -> JSONValue:
    shards: JSONValue = {"@id": f"{split}-shards"}
    turns: list[JSONValue] = [
        {
            "@type": "cr:Field",
            "@id": f"{split}/messages/{name}",
            "name": name,
            "dataType": "sc:Text",
            "source": {"fileSet": shards, "extract": {"column": "messages"}, "transform": {"jsonPath": name}},
        }
        for name in ("role", "content")
    ]
    return {
        "@type": "cr:Field",
        "@id": f"{split}/messages",
        "name": "messages",
        "description": "The turns of the conversation, in order.",
        "repeated": True,
        "dataType": "sc:Text",
        "source": {"fileSet": shards, "extract": {"column": "messages"}},
        "subField": turns,
    }
