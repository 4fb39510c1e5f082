"""Where `GET /metrics` finds what is computed when it is asked for.

vLLM shows prometheus-client's own registry. With several API processes it shows what all of them have written
to files instead, and nothing that is computed: then the route gets a registry that has both. Each process
shows its own residency there.
"""

import os

from fastapi import FastAPI
from prometheus_client import REGISTRY, CollectorRegistry, make_asgi_app
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.routing import Mount, Route

_PATH = "/metrics"


def shown_registry(app: FastAPI) -> CollectorRegistry:
    """Return a registry that `GET /metrics` of `app` shows all of."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    routes = app.router.routes
    routes[:] = [route for route in routes if not (isinstance(route, Route) and route.path == _PATH)]
    for route in routes:
        if isinstance(route, Mount) and route.path == _PATH:
            route.app = make_asgi_app(registry=registry)
    return registry
