"""The OpenAPI document: what FastAPI derives from the routes, and what it cannot know.

It cannot know the body of problems, since their media type is not `application/json`, nor that keys
are checked in front of the routes.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from loradrop.api.schemas import Problem
from loradrop.catalog.http.auth import GUARDED

_SCHEME = {
    "ApiKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "One of LORADROP_API_KEY or its file; to ask for a refresh, one whose scope is admin.",
    }
}


def document(app: FastAPI, *, is_guarded: bool) -> None:
    """Make `app` describe itself in full."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _schema(app, is_guarded=is_guarded)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents for extending it


def _schema(app: FastAPI, *, is_guarded: bool) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = schema.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
    if is_guarded:
        components["securitySchemes"] = _SCHEME
        for path, operations in schema["paths"].items():
            if path.startswith(GUARDED):
                for operation in operations.values():
                    operation["security"] = [{"ApiKey": []}]
    return schema
