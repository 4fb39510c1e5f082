"""The API's description of itself: the OpenAPI document, and a page of it for people.

FastAPI derives the document from the routes. It cannot know the body of problems, since their media type is
not `application/json`, nor that keys are checked in front of the routes. The page is made from the document,
here: it loads nothing from anywhere, and runs no script.
"""

import json
from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse

from loradrop.api.problems import document_problems
from loradrop.api.schemas import Problem
from loradrop.catalog.http.auth import GUARDED

DOCS_PATH = "/docs"

_SCHEME = {
    "ApiKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "One of LORADROP_API_KEY or its file; to ask for a refresh, one whose scope is admin.",
    }
}
_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "code,pre{font:14px/1.4 ui-monospace,monospace;background:#f3f3f3}pre{padding:.7rem;overflow:auto}"
    "h2{border-top:1px solid #ddd;padding-top:1rem}td{padding:.1rem .9rem .1rem 0;vertical-align:top}"
)


def document(app: FastAPI, *, is_guarded: bool) -> None:
    """Make `app` describe itself in full."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _schema(app, is_guarded=is_guarded)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents for extending it

    @app.get(DOCS_PATH, include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse("\n".join(_page(openapi())), headers=_HEADERS)


def _schema(app: FastAPI, *, is_guarded: bool) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = schema.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
    if is_guarded:
        components["securitySchemes"] = _SCHEME
    for path, operations in schema["paths"].items():
        if not path.startswith(GUARDED):
            continue
        for operation in operations.values():
            document_problems(operation)
            if is_guarded:
                operation["security"] = [{"ApiKey": []}]
    return schema


def _page(schema: dict[str, Any]) -> Iterator[str]:
    info = schema["info"]
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title>"
    yield f"<style>{_STYLE}</style><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
    yield from _paragraphs(info["description"])
    yield "<p>For programs: <a href=openapi.json>openapi.json</a>.</p>"
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            yield f"<h2><code>{method.upper()} {escape(path)}</code> {escape(operation['summary'])}</h2>"
            yield from _paragraphs(operation["description"])
            yield from _rows((f"{p['name']} ({p['in']})", p) for p in operation.get("parameters", ()))
            yield from _rows(operation["responses"].items())
    yield "<h2>Bodies</h2>"
    for name, body in schema["components"]["schemas"].items():
        yield f"<details><summary><code>{escape(name)}</code></summary>"
        yield f"<pre>{escape(json.dumps(body, indent=2))}</pre></details>"


def _paragraphs(text: str) -> Iterator[str]:
    yield from (f"<p>{escape(part)}</p>" for part in text.strip().split("\n\n"))


def _rows(described: Any) -> Iterator[str]:
    yield "<table>"
    for name, what in described:
        yield f"<tr><td><code>{escape(name)}</code><td>{escape(what.get('description', ''))}"
    yield "</table>"
