"""What is there to use: bundled prompts, filters and chains, providers with routes and list prices."""

from typing import cast

from rich.table import Table
from rich.text import Text

from synthgen.assets import asset_names, find_asset, suggest
from synthgen.cli.as_json import print_json
from synthgen.cli.output import console
from synthgen.errors import UsageError
from synthgen.plugins import load_plugin, plugin_names
from synthgen.types import JSONValue

__all__ = ["listing", "print_listing"]

Listing = dict[str, list[dict[str, JSONValue]]]
KINDS = ("prompts", "filters", "teachers")


def listing(what: str) -> Listing:
    """Section -> rows.

    Raises:
        UsageError: `what` is not one of prompts, filters, teachers.
    """
    if what == "prompts":
        return _prompts()
    if what == "filters":
        return _filters()
    if what == "teachers":
        return _teachers()
    raise UsageError(f"list {what}: unknown{suggest(what, list(KINDS))}; list one of {', '.join(KINDS)}")


def _prompts() -> Listing:
    from synthgen.templates import load_prompt

    rows: list[dict[str, JSONValue]] = []
    for name in asset_names("prompts"):
        prompt = load_prompt(find_asset("prompts", name))
        rows.append(
            {
                "name": name,
                "version": prompt.version,
                "inputs": list(prompt.inputs),
                "outputs": list(prompt.outputs),
                "description": prompt.description,
            }
        )
    return {"prompts": rows}


def _filters() -> Listing:
    from synthgen.refine import load_chain

    chains: list[dict[str, JSONValue]] = []
    for name in asset_names("filters"):
        chain = load_chain(name)
        steps: list[JSONValue] = [step.id for step in chain.steps]
        chains.append(
            {"name": name, "version": chain.version, "steps": steps, "description": chain.description}
        )
    filters: list[dict[str, JSONValue]] = []
    for name in plugin_names("filter"):
        plugin = load_plugin("filter", name)
        defaults = cast(dict[str, JSONValue], plugin.params.model_construct().model_dump(mode="json"))
        fields = plugin.params.model_fields
        parameters = {field: defaults.get(field, "(required)") for field in fields}
        filters.append({"name": name, "version": plugin.version, "parameters": parameters})
    return {"chains": chains, "filters": filters}


def _teachers() -> Listing:
    from synthgen.asking.prices import price_table
    from synthgen.policy import load_registry

    registry = load_registry()
    providers: list[dict[str, JSONValue]] = [
        {"name": name, "keys": cast(JSONValue, sorted(load_plugin("provider", name).params.model_fields))}
        for name in plugin_names("provider")
    ]
    routes: list[dict[str, JSONValue]] = [
        {"name": route.id, "hosts": list(route.hosts), "aliases": list(route.aliases)}
        for route in registry.routes.values()
    ]
    prices: list[dict[str, JSONValue]] = [
        {
            "host": vendor.host,
            "model": row.model,
            "input": row.input,
            "cached_input": row.cached_input,
            "output": row.output,
            "as_of": row.as_of.isoformat(),
        }
        for vendor in price_table().values()
        for row in vendor.rows
    ]
    return {"providers": providers, "routes": routes, "prices_usd_per_million_tokens": prices}


def print_listing(found: Listing, *, as_json: bool) -> None:
    """Tables, or JSON."""
    if as_json:
        print_json(cast(JSONValue, found))
        return
    out = console()
    for section, rows in found.items():
        table = Table(title=section.replace("_", " "), title_justify="left", box=None, pad_edge=False)
        for column in rows[0] if rows else ():
            table.add_column(column)
        for row in rows:
            table.add_row(*(Text(_cell(value)) for value in row.values()))
        out.print(table)


def _cell(value: JSONValue) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}: {item}" for key, item in value.items() if item is not None)
    return str(value)
