"""The HTTP interface as one HTML page, rendered from its OpenAPI description without scripts."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Swath: HTTP interface</title></head><body>
"""


def render_api_docs(api: Mapping[str, Any]) -> str:
    """HTML page of an OpenAPI description."""
    info = api["info"]
    parts = [
        _HEAD,
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info.get('summary', ''))} "
        "As a file: <a href='/openapi.json'>openapi.json</a>.</p>",
    ]
    for path, methods in api["paths"].items():
        for method, call in methods.items():
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2>")
            parts.append(f"<p>{escape(call.get('description', ''))}</p>")
            parameters = call.get("parameters", [])
            parts.append(
                _table((one["name"], one["schema"], one.get("description", "")) for one in parameters)
            )
            parts += _bodies("Body", call.get("requestBody", {}))
            parts += _bodies("Response", call["responses"].get("200", {}))
    parts.append("<h1>Objects</h1>")
    for name, schema in sorted(api["components"]["schemas"].items()):
        parts.append(f"<h2 id='{escape(name)}'>{escape(name)}</h2>")
        parts.append(f"<p>{escape(schema.get('description', ''))}</p>")
        fields = schema.get("properties", {}).items()
        parts.append(_table((field, kind, kind.get("description", "")) for field, kind in fields))
    return "\n".join([*parts, "</body></html>"])


def _bodies(name: str, message: Mapping[str, Any]) -> list[str]:
    kinds = message.get("content", {}).items()
    return [
        f"<p>{name} ({escape(kind)}): {_type(content['schema'])}</p>"
        for kind, content in kinds
        if content.get("schema")
    ]


def _table(rows: Any) -> str:
    lines = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{_type(schema)}</td><td>{escape(text)}</td></tr>"
        for name, schema, text in rows
    )
    return f"<table>{lines}</table>" if lines else ""


def _type(schema: Mapping[str, Any]) -> str:
    """A schema as text, with links to objects."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f"<a href='#{name}'>{name}</a>"
    for combination in ("anyOf", "oneOf"):
        if combination in schema:
            return " or ".join(_type(part) for part in schema[combination])
    if schema.get("type") == "array":
        inner = ", ".join(_type(part) for part in schema.get("prefixItems", [schema.get("items", {})]))
        return f"[{inner}]"
    if schema.get("properties"):
        return ", ".join(
            f"<code>{escape(name)}</code>: {_type(part)}" for name, part in schema["properties"].items()
        )
    bounds = [f"{sign} {schema[key]}" for key, sign in (("minimum", "≥"), ("maximum", "≤")) if key in schema]
    parts = [str(schema.get("type", "any")), *bounds]
    if "default" in schema and schema["default"] not in (None, [], {}):
        parts.append(f"(default {schema['default']})")
    return escape(" ".join(parts))
