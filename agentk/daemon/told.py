"""What the daemon tells of itself: discovery, OpenAPI, version, health and metrics."""

import asyncio
import os
import platform
import resource
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from agentk.api import errors, kinds
from agentk.daemon import answers, discovery, openapi, pool_metrics
from agentk.daemon.services import Services
from agentk.store.store import Store

# The level of Kubernetes' API that ours follows; kubectl compares it with its own.
_KUBERNETES = ("1", "32")
_AGGREGATED = ("v2", "v2beta1")

Endpoint = Callable[[Request], Awaitable[Response]]


def routes(store: Store, services: Services) -> list[Route]:
    async def version(request: Request) -> Response:
        return answers.plain(_version(services))

    async def ready(request: Request) -> Response:
        if services.ending.is_set():
            raise errors.Unavailable("the daemon is ending")
        store.resource_version()  # raises Unavailable when the store cannot be read
        return PlainTextResponse("ok")

    async def metrics(request: Request) -> Response:
        pools = pool_metrics.lines((await store.list(kinds.POOL)).items)
        text = _metrics(store, services) + "".join(f"{line}\n" for line in pools)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    served: dict[str, Endpoint] = {
        "/": _index,
        "/api": _core,
        "/apis": _groups,
        "/apis/{group}": _group,
        "/api/{version}": _resources,
        "/apis/{group}/{version}": _resources,
        "/openapi/v2": _openapi_v2,
        "/openapi/v3": _openapi_v3,
        "/openapi/v3/api/{version}": _openapi_v3_group,
        "/openapi/v3/apis/{group}/{version}": _openapi_v3_group,
        "/version": version,
        "/healthz": _alive,
        "/livez": _alive,
        "/readyz": ready,
        "/metrics": metrics,
    }
    return [Route(path, endpoint, methods=["GET"]) for path, endpoint in served.items()]


async def _index(request: Request) -> Response:
    places = [f"/{openapi.place(*one)}" for one in openapi.group_versions()]
    own = [
        "/agentk/v1/audit/head",
        "/agentk/v1/doctor",
        "/agentk/v1/status",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
    ]
    return answers.plain({"paths": ["/api", "/apis", *places, *own, "/readyz", "/version"]})


async def _core(request: Request) -> Response:
    return _discovered(request, core=True) or answers.plain(discovery.core_versions())


async def _groups(request: Request) -> Response:
    return _discovered(request, core=False) or answers.plain(discovery.groups())


async def _group(request: Request) -> Response:
    return _or_unknown(request, discovery.group(request.path_params["group"]))


async def _resources(request: Request) -> Response:
    given = request.path_params
    return _or_unknown(request, discovery.resources(given.get("group", ""), given["version"]))


async def _openapi_v2(request: Request) -> Response:
    accept = request.headers.get("accept", "")
    if accept and "json" not in accept and "*/*" not in accept:
        raise errors.NotAcceptable("OpenAPI v2 is served as JSON alone", hint="use /openapi/v3")
    return answers.plain(await asyncio.to_thread(openapi.v2))


async def _openapi_v3(request: Request) -> Response:
    return answers.plain(await asyncio.to_thread(openapi.index))


async def _openapi_v3_group(request: Request) -> Response:
    given = request.path_params
    return _or_unknown(request, await asyncio.to_thread(openapi.v3, given.get("group", ""), given["version"]))


async def _alive(request: Request) -> Response:
    return PlainTextResponse("ok")


def _discovered(request: Request, *, core: bool) -> Response | None:
    """Aggregated discovery, when the caller prefers it."""
    for entry in request.headers.get("accept", "")[:8192].split(","):
        media, *settings = [part.strip() for part in entry.split(";")]
        given = dict(setting.partition("=")[::2] for setting in settings)
        if media not in ("application/json", "*/*"):
            continue
        if "as" not in given:
            return None
        if given["as"] == "APIGroupDiscoveryList" and given.get("v") in _AGGREGATED:
            named = f"application/json;g=apidiscovery.k8s.io;v={given['v']};as=APIGroupDiscoveryList"
            document = discovery.aggregated(core, given["v"])
            response = answers.plain(document, headers={"vary": "Accept"})
            response.headers["content-type"] = named
            return response
    return None


def _or_unknown(request: Request, document: dict[str, Any] | None) -> Response:
    if document is None:
        path = request.scope["path"]
        served = ", ".join(sorted({kind.api_version for kind in kinds.KINDS}))
        raise errors.NotFound(
            f'the server has nothing at "{str(path)[:200]}"', hint=f"served API versions: {served}"
        )
    return answers.plain(document)


def _version(services: Services) -> dict[str, str]:
    return {
        "major": _KUBERNETES[0],
        "minor": _KUBERNETES[1],
        "gitVersion": f"v{_KUBERNETES[0]}.{_KUBERNETES[1]}.0+agentk-{services.version}",
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": platform.python_implementation(),
        "platform": f"{sys.platform}/{platform.machine()}",
        "agentkVersion": services.version,
        "pythonVersion": platform.python_version(),
    }


def _metrics(store: Store, services: Services) -> str:
    """Prometheus' text format."""
    lines = ["# HELP agentk_objects Objects in the store.", "# TYPE agentk_objects gauge"]
    counts = store.counts()
    lines += [f'agentk_objects{{resource="{key}"}} {counts[key]}' for key in sorted(counts)]
    usage = resource.getrusage(resource.RUSAGE_SELF)
    single = (
        ("agentk_resource_version", "gauge", "Id of the newest change.", store.resource_version()),
        ("agentk_build_info", "gauge", "Version of the daemon.", None),
        ("process_resident_memory_bytes", "gauge", "Memory of the daemon.", _rss_bytes()),
        (
            "process_cpu_seconds_total",
            "counter",
            "CPU of the daemon.",
            f"{usage.ru_utime + usage.ru_stime:.2f}",
        ),
        ("process_open_fds", "gauge", "Descriptors of the daemon.", _open_descriptors()),
        ("agentk_asyncio_tasks", "gauge", "Tasks on the daemon's loop.", len(asyncio.all_tasks())),
    )
    for name, type_, about, value in single:
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {type_}"]
        lines.append(f'{name}{{version="{services.version}"}} 1' if value is None else f"{name} {value}")
    return "\n".join(lines) + "\n"


def _rss_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _open_descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0
