"""Rights, audit, metrics and the rest that only tells something, in the AgentOS dialect.

From here a guest sees itself and what it spawned, nothing of the host and nothing of others.
"""

import time
from datetime import UTC, datetime
from typing import Any

from agentk.api import errors, quantities
from agentk.broker.dialects import agentos_family as family
from agentk.broker.dialects.agentos_session import Object, Session
from agentk.broker.dialects.agentos_words import Asked, Json, size_bytes
from agentk.broker.dialects.frames import PAYLOAD_BYTES
from agentk.store import journal_words as entries

_AUDIT_MAX = 500
_AUDIT_BYTES = PAYLOAD_BYTES - 64 * 1024
_AGENTS_MAX = 500
_CATEGORIES = {
    "agent": "AGENT_LIFECYCLE",
    "exit": "AGENT_LIFECYCLE",
    "message": "IPC",
    "event": "IPC",
    "state": "STATE_STORE",
    "lock": "STATE_STORE",
    "queue": "STATE_STORE",
    "http": "NETWORK",
}
_LOGGED = ("syscalls", "security", "lifecycle", "ipc", "state", "resource", "network", "world")


async def hello(session: Session, asked: Asked) -> Json:
    told = await session.call("hello", {"client": "agentos"})
    features = {
        **dict.fromkeys(("think", "exec", "files", "spawn", "messages", "state", "events"), True),
        **dict.fromkeys(
            ("pause", "http", "permissions", "async", "record", "replay", "audit", "metrics"), True
        ),
        **dict.fromkeys(("worlds", "tunnels"), False),
    }
    return {
        "success": True,
        "protocol_version": 1,
        "kernel_version": f"agentk {session.kernel.version}",
        "agent_id": session.agent_id,
        "name": told["agent"],
        "features": features,
    }


async def report(session: Session, asked: Asked) -> Json:
    """LLM_REPORT: what a program says it used. Budgets count what the gate itself saw, so it changes nothing."""
    await session.permitted()
    return {"success": True, "tokens": asked.whole("tokens", 0, 0, 2**53), "quota_exceeded": False}


# rights


async def rights(session: Session, asked: Asked) -> Json:
    await session.permitted()
    shown = session.kernel.rights.shown(session.guest)
    return {"success": True, "permissions": shown}


async def lower(session: Session, asked: Asked) -> Json:
    """SET_PERMS, of the guest or of what it spawned."""
    await session.permitted()
    guest = session.guest
    if asked.get("agent_id") not in (None, 0, session.agent_id):
        agent = family.chosen(session, Asked({"id": asked.get("agent_id")}))
        box_id = (agent.get("status") or {}).get("boxID")
        if not box_id:
            raise errors.Conflict("this agent has not started yet")
        guest = session.kernel.guests.find(box_id)
    session.kernel.rights.lower(guest, asked)
    return {
        "success": True,
        "agent_id": session.kernel.ids.of(guest.uid),
        "permissions": session.kernel.rights.shown(guest),
    }


# audit


async def audit(session: Session, asked: Asked) -> Json:
    """The newest records of the journal, in order, of the guest and what it spawned."""
    await session.permitted()
    most = asked.whole("limit", 100, 1, _AUDIT_MAX)
    after, category = asked.whole("since_id", 0, 0, 2**62), asked.text("category", default="").upper()
    uids = [str(one["metadata"]["uid"]) for one in session.kernel.guests.family(session.guest.uid)]
    if asked.get("agent_id") not in (None, 0):
        wanted = session.kernel.ids.uid(asked.whole("agent_id", 0, 0, 2**32)).partition("/")[0]
        uids = [uid for uid in uids if uid == wanted]
    # A category is looked for among the newest only.
    found = await session.kernel.audit(uids[:_AGENTS_MAX], after, _AUDIT_MAX if category else most)
    told: list[Json] = []
    size = 0
    for record in reversed(found):
        entry = _entry(session, record)
        if category and entry["category"] != category:
            continue
        size += size_bytes(entry) + 1
        if len(told) >= most or size > _AUDIT_BYTES:
            break
        told.append(entry)
    told.reverse()
    return {"success": True, "count": len(told), "entries": told}


def _entry(session: Session, record: entries.Record) -> Json:
    denied = record.status == "denied"
    group = record.method.partition(".")[0]
    return {
        "id": record.id,
        "timestamp": datetime.fromtimestamp(record.at, UTC).isoformat(timespec="milliseconds"),
        "category": "SECURITY" if denied else _CATEGORIES.get(group, "SYSCALL"),
        "event_type": "SYSCALL_BLOCKED" if denied else record.method,
        "agent_id": session.kernel.ids.of(record.uid),
        "agent_name": record.agent,
        "success": record.status in ("ok", ""),
        "details": {"method": record.method, "kind": record.kind, "status": record.status, **record.meta},
    }


async def audit_config(session: Session, asked: Asked) -> Json:
    """Everything is on record, always: asking for less is refused, asking for what is so is fine."""
    await session.permitted()
    for name in asked.fields:
        if name.startswith("log_") and not asked.flag(name, True):
            raise errors.Denied(f"{name}: the journal records every effect, and no agent turns it off")
    config = {"max_entries": _AUDIT_MAX, **{f"log_{name}": True for name in _LOGGED}}
    return {"success": True, "config": config}


# metrics


async def system(session: Session, asked: Asked) -> Json:
    """What the guest may use and does: its box is the system it lives in."""
    await session.permitted()
    guest = session.guest
    own = session.kernel.guests.of(guest.uid)
    counted = await _counted(session, own)
    memory = _limit(guest.spec, "memory") or 0
    used, cpus = counted.get("memoryBytes", 0), (_limit(guest.spec, "cpu") or 0) / 1000
    metrics: Json = {
        "timestamp": int(time.time() * 1000),
        "cpu": {"percent": 0.0, "per_core": [], "count": cpus, "load_avg": [0.0, 0.0, 0.0]},
        "memory": {
            "total": memory,
            "available": max(0, memory - used),
            "used": used,
            "percent": round(100 * used / memory, 1) if memory else 0.0,
        },
        "swap": {"total": 0, "used": 0, "percent": 0.0},
        "disk": {
            "total": _limit(guest.spec, "ephemeral-storage") or 0,
            "used": counted.get("storageBytes", 0),
            "read_bytes": 0,
            "write_bytes": 0,
        },
        "network": {"bytes_sent": 0, "bytes_recv": 0},
    }
    if own is not None:
        metrics["cpu"]["percent"] = _percent(own, counted)
    return {"success": True, "metrics": metrics}


async def one_agent(session: Session, asked: Asked) -> Json:
    await session.permitted()
    number = asked.whole("agent_id", 0, 0, 2**32)
    agent = session.kernel.guests.of(session.guest.uid)
    if number:
        agent = family.chosen(session, Asked({"id": number}))
    if agent is None:
        raise errors.NotFound("agent not found")
    return {"success": True, "metrics": await _metrics(session, agent)}


async def all_agents(session: Session, asked: Asked) -> Json:
    await session.permitted()
    agents = session.kernel.guests.family(session.guest.uid)[:_AGENTS_MAX]
    found = [await _metrics(session, agent) for agent in agents]
    return {"success": True, "agents": found, "count": len(found)}


async def cgroup(session: Session, asked: Asked) -> Json:
    """Of the guest's own; a path is for others to see, and is not looked at."""
    await session.permitted()
    if asked.text("cgroup_path", default=""):
        raise errors.Denied("an agent sees its own cgroup only", hint="leave cgroup_path out")
    agent = session.kernel.guests.of(session.guest.uid)
    return {"success": True, "metrics": _cgroup(session.guest.spec, await _counted(session, agent))}


async def _metrics(session: Session, agent: Object) -> Json:
    counted, status = await _counted(session, agent), agent.get("status") or {}
    began = status.get("startedAt")
    up = datetime.now(UTC) - datetime.fromisoformat(began) if began else None
    used = session.kernel.rights.used(session.guest)
    own = agent["metadata"]["uid"] == session.guest.uid
    return {
        "agent_id": session.id(agent),
        "name": session.name(agent),
        "pid": 0,
        "status": str(status.get("phase") or "Pending").lower(),
        "uptime_ms": max(0, int(up.total_seconds() * 1000)) if up else 0,
        "sandboxed": session.kernel.guests.runtime(agent["spec"])[1],
        "process": {
            "cpu": {"percent": _percent(agent, counted)},
            "memory": {"rss": counted.get("memoryBytes", 0)},
            "threads": counted.get("pids", 0),
        },
        "cgroup": _cgroup(agent["spec"], counted) if counted else None,
        "kernel_stats": {
            "llm_calls": used.calls if own else 0,
            "llm_tokens_used": used.tokens if own else 0,
        },
    }


def _cgroup(spec: Object, counted: Any) -> Json:
    cpu = _limit(spec, "cpu") or 0
    return {
        "valid": bool(counted),
        "cpu": {
            "usage_usec": counted.get("cpuUsec", 0),
            "nr_throttled": counted.get("throttledPeriods", 0),
            "throttled_usec": counted.get("throttledUsec", 0),
            "quota_usec": cpu * 100,
            "period_usec": 100_000,
        },
        "memory": {
            "current": counted.get("memoryBytes", 0),
            "max": _limit(spec, "memory") or 0,
            "peak": counted.get("memoryPeakBytes", 0),
            "oom_kills": counted.get("oomKills", 0),
        },
        "pids": {"current": counted.get("pids", 0), "max": _limit(spec, "pids") or 0},
    }


async def _counted(session: Session, agent: Object | None) -> Any:
    """What the kernel counted; nothing when the box is not there."""
    box_id = ((agent or {}).get("status") or {}).get("boxID")
    if not box_id:
        return {}
    try:
        return await session.kernel.counters(box_id)
    except (errors.AgentkError, OSError):
        return {}


def _percent(agent: Object, counted: Any) -> float:
    """CPU time over the agent's life: no process stands by to measure less of it."""
    began = (agent.get("status") or {}).get("startedAt")
    if not began:
        return 0.0
    seconds = (datetime.now(UTC) - datetime.fromisoformat(began)).total_seconds()
    return round(counted.get("cpuUsec", 0) / 1e4 / seconds, 1) if seconds > 0 else 0.0


def _limit(spec: Object, name: str) -> int | None:
    value = ((spec.get("resources") or {}).get("limits") or {}).get(name)
    if value is None:
        return None
    if name == "pids":
        return int(value)
    return quantities.parse_cpu(value) if name == "cpu" else quantities.parse_quantity(value)
