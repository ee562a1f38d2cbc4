"""SPAWN, KILL and LIST of the AgentOS dialect: Agents that this one owns, made and ended by the gate's own calls.

What is asked for is put into an Agent's spec, and what is left out is taken from AgentOS' defaults, but never more
than the parent has: a program that asks for nothing special runs wherever its parent does. What it asks for beyond
is for the gate to refuse.
"""

import asyncio
import contextlib
import posixpath
import re
import secrets
from collections.abc import Mapping
from typing import Any

from agentk.api import errors, quantities
from agentk.broker.dialects import agentos_work as work
from agentk.broker.dialects.agentos_session import Host, Object, Session
from agentk.broker.dialects.agentos_words import Asked, Json

SOCKET = "$(AGENTK_SOCKET)"  # as its box has it
HOST_LABEL = "agentos-host"  # what a host program's session spawned: the session's Agent
_STARTED_SECONDS = 10.0  # then it is told as it is
_GRACE_SECONDS = 5
_KEPT_SECONDS = 60  # of one that has ended: AgentOS forgets at once
_MEMORY_BYTES, _PIDS, _CPU_MILLIS, _PERIOD_USEC = 256 * 1024 * 1024, 64, 1000, 100_000
_POLICIES = {"never": "Never", "on-failure": "OnFailure", "always": "Always"}
_STATES = {"Pending": "CREATED", "Starting": "STARTING", "Running": "RUNNING", "Suspended": "PAUSED"}
_OVER = ("Succeeded", "Failed", "Terminating")


async def spawn(session: Session, asked: Asked) -> Json:
    name = asked.text("name", default="") or f"agent-{secrets.token_hex(3)}"
    script = asked.text("script", default="")
    if not script:
        raise errors.BadRequest("script path required")
    if any(session.name(one) == name for one in _living(session)):
        raise errors.AlreadyExists(f"an agent called {name[:200]} is there already")
    spec = await _spec(session, asked, script)
    made = await _made(session, name, spec, str(spec.get("runtimeRef", {}).get("name", "")))
    session.kernel.called.register(session.guest.namespace, name, made["uid"])
    agent = await _started(session, made["uid"])
    restart = next(key for key, value in _POLICIES.items() if value == spec["restartPolicy"])
    reply: Json = {
        **_shown(session, agent, name, made["uid"]),
        "success": True,
        "restart_policy": restart,
        "isolation": _isolation(session, agent, spec),
    }
    phase = _phase(agent)
    if phase in ("Failed", "Pending") and (why := (agent or {}).get("status", {}).get("message")):
        reply["message"] = str(why)[:1000]
    return reply


async def _made(session: Session, name: str, spec: Json, runtime: str) -> Json:
    """Under its name as far as objects can have it; a name of somebody else's is no reason to fail."""
    wanted = re.sub(r"[^a-z0-9-]+", "-", name.lower())[:50].strip("-") or "agent"
    labels = {HOST_LABEL: session.guest.name} if session.host is not None else {}
    for tail in ("", f"-{secrets.token_hex(4)}"):
        try:
            params = {"name": wanted + tail, "spec": spec, "labels": labels}
            made: Json = await session.call("agent.spawn", params, runtime=runtime)
            return made
        except errors.AlreadyExists:
            if tail:
                raise
    raise AssertionError("the loop ends by itself")


async def _spec(session: Session, asked: Asked, script: str) -> Json:
    parent = session.guest.spec
    spec: Json = {"restartPolicy": _restart(asked)}
    sandboxed = asked.flag("sandboxed", True)
    if (
        session.host is None
    ):  # whatever it says: what its parent has is what it gets, and `isolation` tells so
        brought, path = await _beside(session, script, parent)
        spec |= brought
    elif sandboxed:
        brought, path = await session.host.source(script)
        spec |= brought
    else:
        spec["runtimeRef"] = {"name": await _unjailed(session, session.host)}
        brought, path = await session.host.source(script, jailed=False)
        spec |= brought
    spec["command"] = [asked.text("python", default="python3"), path.replace("$", "$$"), SOCKET]
    if parent.get("env"):
        spec["env"] = [*parent["env"], *spec.get("env", ())]
    if asked.flag("network") and parent.get("network"):
        spec["network"] = parent["network"]
    if spec["restartPolicy"] != "Never":
        spec["maxRestarts"] = asked.whole("max_restarts", 5, 1, 1_000_000)
        window = quantities.parse_duration(str(parent.get("restartWindow", "10m")))
        spec["restartWindow"] = f"{int(max(asked.whole('restart_window', 300, 1, 10**6), window))}s"
    if "ttlSecondsAfterFinished" not in parent:
        spec["ttlSecondsAfterFinished"] = _KEPT_SECONDS
    if limits := _limits(asked.part("limits"), parent):
        spec["resources"] = {"limits": limits}
    return spec


async def _unjailed(session: Session, host: Host) -> str:
    """The Runtime of what a host program does not want sandboxed. Raises Denied."""
    guest = session.guest
    if session.kernel.rights.cuts(guest):
        raise errors.Denied(
            "permission denied: SPAWN (sandboxed: false)",
            hint="SET_PERMS lowered the rights of this program, and nothing holds what has no jail to them",
        )
    return await host.unjailed(guest)


def _restart(asked: Asked) -> str:
    wanted = asked.text("restart_policy", default="never").replace("_", "-").lower()
    if wanted not in _POLICIES:
        raise errors.BadRequest(f"restart_policy must be one of {', '.join(_POLICIES)}")
    return _POLICIES[wanted]


def _limits(asked: Asked, parent: Mapping[str, Any]) -> Json:
    """What was asked for as it is; defaults no larger than the parent's."""
    had = (parent.get("resources") or {}).get("limits") or {}
    period = asked.number("cpu_period", _PERIOD_USEC, 1000, 1_000_000)
    quota = asked.number("cpu_quota", 0, 0, 1e12)
    given = {
        "memory": asked.whole("memory", 0, 0, 2**62) or None,
        "pids": asked.whole("max_pids", 0, 0, 10**6) or None,
        "cpu": f"{max(1, round(quota / period * 1000))}m" if quota else None,
    }
    if given["memory"] is None and asked.get("memory_limit") is not None:
        given["memory"] = asked.whole("memory_limit", 0, 0, 2**62) or None
    defaults = {
        "memory": min(_MEMORY_BYTES, _had(had, "memory", _MEMORY_BYTES)),
        "pids": int(min(_PIDS, _had(had, "pids", _PIDS))),
        "cpu": f"{max(1, int(min(_CPU_MILLIS, _had(had, 'cpu', _CPU_MILLIS))))}m",
    }
    found: Json = {key: given[key] if given[key] is not None else value for key, value in defaults.items()}
    found["memory"] = str(int(found["memory"]))
    return found


def _had(limits: Mapping[str, Any], name: str, otherwise: float) -> float:
    value = limits.get(name)
    if value is None:
        return otherwise
    if name == "pids":
        return float(value)
    return float(quantities.parse_cpu(value) if name == "cpu" else quantities.parse_quantity(value))


async def _beside(session: Session, script: str, parent: Mapping[str, Any]) -> tuple[Json, str]:
    """What brings the script into a box like its parent's, and the path it has there."""
    jailed = session.kernel.guests.runtime(parent)[1]
    if not jailed and script.startswith("/"):  # both see the host's files
        return {}, posixpath.normpath(script)
    source, path = await _source(session, script, parent)
    return {"source": source}, path if jailed else posixpath.relpath(path, "/app")


async def _source(session: Session, script: str, parent: Mapping[str, Any]) -> tuple[Json, str]:
    """The parent's own files when the script is among them; else the script alone, read as the parent reads it."""
    source = parent.get("source")
    whole = posixpath.normpath(posixpath.join("/app" if source else "/workspace", script))
    if source and whole.startswith("/app/"):
        return dict(source), whole
    told = await work.read(session, Asked({"path": whole}))
    name = posixpath.basename(whole)
    return {"inline": {"files": {name: told["content"]}}}, f"/app/{name}"


async def _started(session: Session, uid: str) -> Object | None:
    """The agent once it runs, or will not, or when that took long. None: it is gone already."""
    guests = session.kernel.guests
    with guests.listening(uid) as bell, contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_STARTED_SECONDS):
            while True:
                bell.clear()
                agent = guests.of(uid)
                if agent is None or _phase(agent) not in ("Pending", "Starting"):
                    return agent
                await bell.wait()
    return guests.of(uid)


def _isolation(session: Session, agent: Object | None, spec: Json) -> Json:
    """As far as it is known: conditions of an agent say what was proved of its box."""
    status = (agent or {}).get("status") or {}
    conditions = {one.get("type"): one for one in status.get("conditions") or ()}
    boxed = conditions.get("SandboxReady", {}).get("status") == "True"
    limited = conditions.get("LimitsEnforced", {}).get("status") == "True"
    runtime, is_jail = session.kernel.guests.runtime((agent or {}).get("spec") or spec)
    jailed = boxed and is_jail
    told: Json = {
        "fully_isolated": jailed and limited,
        "namespaces": dict.fromkeys(("pid", "net", "mnt", "uts"), jailed),
        "cgroups": {
            "available": limited,
            **dict.fromkeys(("memory_limit", "cpu_quota", "pids_limit"), limited),
        },
    }
    if not is_jail:
        told["degraded_reason"] = f'Runtime "{runtime}" makes no jails'
    elif not (jailed and limited):
        held = conditions.get("LimitsEnforced" if jailed else "SandboxReady", {})
        told["degraded_reason"] = str(held.get("message") or "not known yet")[:500]
    return told


async def kill(session: Session, asked: Asked) -> Json:
    agent = chosen(session, asked)
    told = await session.call(
        "agent.kill", {"name": agent["metadata"]["name"], "gracePeriodSeconds": _GRACE_SECONDS}
    )
    return {"success": told["killed"], "killed": told["killed"], "agent_id": session.id(agent)}


def chosen(session: Session, asked: Asked) -> Object:
    """The agent of the family that is meant by name or id. Raises NotFound."""
    number, name = asked.get("id", "agent_id"), asked.get("name")
    if name is None and number is None:
        raise errors.BadRequest("name or id required")
    if name is not None:
        name = asked.text("name")
        found = next((one for one in _living(session) if session.name(one) == name), None)
        found = found or session.of_family(session.peer_named(name))
    else:
        if isinstance(number, bool) or not isinstance(number, int):
            raise errors.BadRequest("id must be a number")
        found = session.of_family(session.peer(number))
    if found is None:
        raise errors.NotFound(f"agent not found: {str(name if name is not None else number)[:200]}")
    return found


async def listing(session: Session, asked: Asked) -> list[Any]:
    """LIST: those that live, of this agent and below. A host program is no agent of its own list."""
    found: list[Any] = []
    after = ""
    while True:
        page = await session.call("agent.list", {"limit": 1000, "continue": after})
        for item in page["items"]:
            own = item["uid"] == session.guest.uid
            agent = session.kernel.guests.of(item["uid"])
            if agent is not None and _phase(agent) not in _OVER and not (own and session.host):
                found.append(_shown(session, agent, session.name(agent), item["uid"]))
        after = page.get("continue", "")
        if not after:
            return found


async def pause(session: Session, asked: Asked) -> Json:
    return await _switched(session, asked, "agent.pause", "paused")


async def resume(session: Session, asked: Asked) -> Json:
    return await _switched(session, asked, "agent.resume", "resumed")


async def _switched(session: Session, asked: Asked, method: str, word: str) -> Json:
    agent = chosen(session, asked)
    told = await session.call(method, {"name": agent["metadata"]["name"]})
    return {"success": told[word], word: told[word], "agent_id": session.id(agent)}


def _living(session: Session) -> list[Object]:
    own = session.guest.uid
    family = session.kernel.guests.family(own)
    return [one for one in family if one["metadata"]["uid"] != own and _phase(one) not in _OVER]


def _shown(session: Session, agent: Object | None, name: str, uid: str) -> Json:
    """`pid` is 0: a process id of the host means nothing to who is in a jail."""
    phase = _phase(agent) if agent is not None else "Failed"
    state = _STATES.get(phase, "STOPPED")
    return {
        "id": session.kernel.ids.of(uid),
        "name": name,
        "pid": 0,
        "state": state,
        "status": state.lower(),
        "running": state == "RUNNING",
    }


def _phase(agent: Object | None) -> str:
    if agent is None:
        return "Failed"
    if agent["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return str((agent.get("status") or {}).get("phase") or "Pending")
