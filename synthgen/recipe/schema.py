"""The JSON schema of a recipe, for editors: `synthgen schema`.

In: the recipe model and the parameter models of every registered provider and source. Out: one JSON schema in which a
teacher's fields depend on its provider and a source's on its kind.
"""

from typing import cast

from pydantic import BaseModel

from synthgen.plugins import load_plugin, plugin_names
from synthgen.recipe.model import Recipe
from synthgen.types import JSONValue

__all__ = ["recipe_schema"]

Schema = dict[str, JSONValue]


def recipe_schema() -> Schema:
    """JSON Schema (2020-12) of `recipe.yaml`."""
    whole = cast(Schema, Recipe.model_json_schema(by_alias=True))
    definitions = cast(Schema, whole.setdefault("$defs", {}))
    teachers = [_provider(name, definitions) for name in plugin_names("provider")]
    cast(Schema, whole["properties"])["teachers"] = {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"oneOf": cast(JSONValue, teachers)},
    }
    definitions["SourceConfig"] = _source(definitions)
    cast(Schema, whole["properties"])["use"] = {
        "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole, "title": "synthgen recipe"}


def _provider(name: str, definitions: Schema) -> Schema:
    own = _model(load_plugin("provider", name).params, definitions)
    properties = cast(Schema, own["properties"])
    properties["provider"] = {"const": name}
    return own


def _source(definitions: Schema) -> Schema:
    kinds = plugin_names("source")
    properties: Schema = {
        "license": {"type": "string", "description": "`own`, or the SPDX id of the text's licence"},
        "relation": {"enum": ["verbatim", "adapted", "inspired", "none"], "default": "adapted"},
        "limit": {"type": "integer", "minimum": 1},
    }
    for kind in kinds:
        own = _model(load_plugin("source", kind).params, definitions)
        properties[kind] = {"anyOf": [{"type": "string"}, {"type": "array"}, own]}
    one_of: list[JSONValue] = [{"required": [kind]} for kind in kinds]
    return {"type": "object", "properties": properties, "additionalProperties": False, "oneOf": one_of}


def _model(model: type[BaseModel], definitions: Schema) -> Schema:
    """A model's schema with its definitions moved to the common ones."""
    own = cast(Schema, model.model_json_schema(by_alias=True))
    definitions.update(cast(Schema, own.pop("$defs", {})))
    return own
