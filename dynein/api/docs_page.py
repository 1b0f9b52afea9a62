"""``/docs``: the OpenAPI document as one page of HTML. Pure.

No script, and nothing from elsewhere: it can be read where there is no internet, and its Content-Security-Policy allows
nothing but its own style sheet. Tools take the document itself, ``/openapi.json``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --faint: #888; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); }
section { border: 1px solid var(--line); border-radius: 6px; padding: 0 1rem 1rem; margin: 1rem 0; }
section h3 code { background: none; padding: 0; }
code, pre { font: 13px/1.45 ui-monospace, monospace; background: var(--soft); border-radius: 4px; }
code { padding: .1em .3em; }
pre { padding: .7rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
td, th { border-top: 1px solid var(--line); padding: .4rem .6rem .4rem 0; text-align: left; vertical-align: top; }
td ul { margin: 0; padding-left: 1.1rem; }
td p { margin: 0; }
.method { display: inline-block; min-width: 4.5em; font-weight: 700; }
.optional, .about { color: var(--faint); font-weight: 400; }
summary { cursor: pointer; }
"""
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_METHODS = ("get", "post", "patch", "put", "delete")
_CODE = re.compile(r"`([^`]+)`")
_BOLD = re.compile(r"\*\*([^*]+)\*\*")


def docs_page(document: Mapping[str, Any]) -> str:
    """The page for an OpenAPI document as `dynein.api.openapi` makes it."""
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body>",
        f'<h1>{title}</h1>{_prose(document["info"]["description"])}<p><a href="/openapi.json">OpenAPI document</a></p>',
    ]
    for tag in document["tags"]:
        parts.append(f"<h2>{escape(tag['name'])}</h2>{_prose(tag['description'])}")
        parts += _operations(document["paths"], tag["name"])
    parts.append("<h2>Schemas</h2>")
    parts += [_schema(name, schema) for name, schema in document["components"]["schemas"].items()]
    return "\n".join([*parts, "</body></html>"])


def _operations(paths: Mapping[str, Any], tag: str) -> Iterator[str]:
    for path, item in paths.items():
        for method in _METHODS:
            if tag in item.get(method, {}).get("tags", ()):
                yield _operation(method, path, item[method], item.get("parameters", []))


def _operation(method: str, path: str, operation: Mapping[str, Any], shared: list[Any]) -> str:
    name = f'<span class="method">{method.upper()}</span> <code>{escape(path)}</code>'
    parts = [
        f'<section id="{escape(operation["operationId"])}">',
        f'<h3>{name} <span class="about">{escape(operation["summary"])}</span></h3>',
        _prose(operation["description"]),
    ]
    parameters = [*shared, *operation.get("parameters", [])]
    if parameters:
        rows = (
            _row(f"<code>{escape(each['name'])}</code> in {escape(each['in'])}", _prose(each.get("description", "")))
            for each in parameters
        )
        parts.append(f"<h4>Parameters</h4>{_table(rows)}")
    if "requestBody" in operation:
        parts.append(f"<h4>Body</h4>{_content(operation['requestBody'])}")
    rows = (_row(f"<b>{escape(status)}</b>", _response(each)) for status, each in operation["responses"].items())
    parts.append(f"<h4>Responses</h4>{_table(rows)}</section>")
    return "\n".join(parts)


def _response(response: Mapping[str, Any]) -> str:
    headers = "".join(
        f"<p>Header <code>{escape(name)}</code>: {_inline(header['description'])}</p>"
        for name, header in response.get("headers", {}).items()
    )
    return f"{_prose(response['description'])}{headers}{_content(response)}"


def _content(described: Mapping[str, Any]) -> str:
    parts = []
    for media_type, content in described.get("content", {}).items():
        parts.append(f"<p>{_type(content['schema'])} as <code>{escape(media_type)}</code></p>")
        examples = {name: each["value"] for name, each in content.get("examples", {}).items()}
        if "example" in content:
            examples["example"] = content["example"]
        parts += [
            f"<details><summary>{escape(name)}</summary>"
            f"<pre>{escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre></details>"
            for name, value in examples.items()
        ]
    return "".join(parts)


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = (
        _row(
            f"<code>{escape(field)}</code>" + ("" if field in required else ' <span class="optional">optional</span>'),
            f"<p>{_type(about)}</p>{_prose(about.get('description', ''))}",
        )
        for field, about in schema.get("properties", {}).items()
    )
    values = "" if "properties" in schema else f"<p>{_type(schema)}</p>"
    return (
        f'<section id="schema-{escape(name)}"><h3>{escape(name)}</h3>{_prose(schema.get("description", ""))}{values}'
        f"{_table(rows)}</section>"
    )


def _type(schema: Mapping[str, Any]) -> str:
    """A type in few words, as HTML."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(map(_type, schema[several])))
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if values:
        return " or ".join(f"<code>{escape(json.dumps(value))}</code>" for value in values)
    if schema.get("type") == "array":
        return f"array of {_type(schema.get('items', {}))}"
    if isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {_type(schema['additionalProperties'])}"
    return escape(str(schema.get("type", "any JSON value")))


def _table(rows: Iterator[str]) -> str:
    return f"<table>{''.join(rows)}</table>"


def _row(left: str, right: str) -> str:
    return f"<tr><th>{left}</th><td>{right}</td></tr>"


def _prose(text: str) -> str:
    """The little Markdown that descriptions have: paragraphs, lists, bold and code."""
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = block.splitlines()
        if lines and all(line.startswith("* ") for line in lines):
            blocks.append(f"<ul>{''.join(f'<li>{_inline(line[2:])}</li>' for line in lines)}</ul>")
        elif block:
            blocks.append(f"<p>{_inline(block)}</p>")
    return "".join(blocks)


def _inline(text: str) -> str:
    return _BOLD.sub(r"<b>\1</b>", _CODE.sub(r"<code>\1</code>", escape(text)))
