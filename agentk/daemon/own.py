"""/agentk/v1: what Kubernetes has no path for. Packed sources, the doctor, the daemon itself, proofs of the journal."""

import asyncio
import secrets
from dataclasses import asdict

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from agentk.api import errors
from agentk.daemon import answers, audits, bodies, budgeting, desk, hostcalls
from agentk.daemon.services import Services
from agentk.memory import database
from agentk.store.blobs import BLOB_BYTES_MAX
from agentk.store.store import Store

_UPLOADS = 2  # at once: each is held in memory on its way


def routes(store: Store, services: Services) -> list[BaseRoute]:
    uploads = asyncio.Semaphore(_UPLOADS)

    async def put_blob(request: Request) -> Response:
        digest = request.path_params["digest"]
        store.blobs.path(digest)  # refuses what is no digest before anything is read
        async with uploads:
            data = await bodies.read(request, BLOB_BYTES_MAX)
            stored = await store.put_blob(data, expected=digest)
        return answers.plain({"digest": stored, "sizeBytes": len(data)}, 201)

    async def has_blob(request: Request) -> Response:
        digest = request.path_params["digest"]
        if not await asyncio.to_thread(store.blobs.has, digest):
            raise errors.NotFound(f"no blob {digest}", hint="send it with PUT")
        return answers.plain({"digest": digest})

    async def backup(request: Request) -> Response:
        copy = store.folder / f"backup-{secrets.token_hex(8)}.tar"
        wanted = request.query_params.get("memory", "true")
        if wanted not in ("true", "false"):
            raise errors.BadRequest("memory is true or false", field="memory")
        remembered = services.memory if wanted == "true" else None
        await store.backup(copy, {database.DATABASE: remembered.db.copy} if remembered else None)
        return FileResponse(
            copy, media_type="application/x-tar", background=BackgroundTask(copy.unlink, True)
        )

    async def doctor(request: Request) -> Response:
        found = await services.findings()
        ok = all(finding.ok for finding in found if finding.needed)
        return answers.plain({"ok": ok, "findings": [asdict(finding) for finding in found]})

    async def status(request: Request) -> Response:
        return answers.plain(dict(await services.status()))

    async def put_indexes(request: Request) -> Response:
        body = await bodies.optional(request)
        await asyncio.to_thread(services.indexes, body)
        return answers.plain({})

    async def shutdown(request: Request) -> Response:
        body = await bodies.optional(request)
        kill = body.pop("killAgents", False)
        if body or not isinstance(kill, bool):
            raise errors.BadRequest("a shutdown takes killAgents alone, true or false")
        await services.shutdown(kill)
        return answers.plain({"killAgents": kill}, 202)

    return [
        *_gate_routes(store, services),
        Route("/blobs/{digest}", put_blob, methods=["PUT"]),
        Route("/blobs/{digest}", has_blob, methods=["GET", "HEAD"]),
        Route("/backup", backup, methods=["GET"]),
        Route("/doctor", doctor, methods=["GET"]),
        Route("/status", status, methods=["GET"]),
        Route("/indexes", put_indexes, methods=["PUT"]),
        Route("/shutdown", shutdown, methods=["POST"]),
    ]


def _gate_routes(store: Store, services: Services) -> list[BaseRoute]:
    async def head(request: Request) -> Response:
        return answers.plain(await audits.head(desk.there(services.desk)))

    async def verify(request: Request) -> Response:
        body = await bodies.optional(request)
        kept = body.pop("head", None)
        if body or not isinstance(kept, dict | None):
            raise errors.BadRequest("a verification takes head alone: what audit head printed")
        return answers.plain(await audits.verify(desk.there(services.desk), kept))

    async def erase(request: Request) -> Response:
        body = await bodies.optional(request)
        what, reason = body.pop("what", ""), body.pop("reason", "")
        if body or not isinstance(what, str) or not what or not isinstance(reason, str):
            raise errors.BadRequest("what is the id of an effect, or the digest of a body; reason is text")
        return answers.plain(await audits.erase(desk.there(services.desk), what, reason[:1000]))

    async def budgets(request: Request) -> Response:
        namespace = request.path_params["namespace"]
        return answers.plain(await budgeting.of_namespace(desk.there(services.desk), store, namespace))

    async def think(request: Request) -> Response:
        room, namespace = desk.there(services.desk), request.path_params["namespace"]
        body = await bodies.optional(request)
        return answers.plain(await hostcalls.think(room, store, namespace, body, request))

    return [
        Route("/audit/head", head, methods=["GET"]),
        Route("/audit/verify", verify, methods=["POST"]),
        Route("/audit/erase", erase, methods=["POST"]),
        Route("/budgets/{namespace}", budgets, methods=["GET"]),
        Route("/think/{namespace}", think, methods=["POST"]),
    ]
