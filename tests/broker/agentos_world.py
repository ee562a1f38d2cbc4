"""A gate with a real journal and real Policies, and the smallest handlers, for clients of the AgentOS dialect."""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentk.api import errors, kinds
from agentk.broker import gate, methods, policy
from agentk.broker.budgets import Budgets
from agentk.broker.budgets_limits import Limits
from agentk.broker.budgets_node import Owner
from agentk.broker.calling import execing
from agentk.broker.dialects import agentos
from agentk.broker.dialects.agentos_session import Host, Kernel
from agentk.broker.door import Door
from agentk.broker.guests import Guests
from agentk.broker.methods import ONE_CALL, Context, Done, Params
from agentk.broker.words import Guest
from agentk.store import journal_reading
from agentk.store.journal import Journal
from agentk.store.journal_anchor import StateAnchor
from tests.broker.agentos_client import Client

NOW = "2026-01-01T00:00:00.000000Z"


class World:
    def __init__(self, folder: Path, policies: dict[str, dict[str, Any]] | None = None) -> None:
        self.folder = folder
        (folder / "store").mkdir(mode=0o700)
        anchor: list[str] = []
        self.journal = Journal.open(
            folder / "store", StateAnchor(lambda: anchor[-1] if anchor else None, anchor.append)
        )
        self.budgets = Budgets()
        self.budgets.put("namespace/default", Owner("quota", "q"), Limits(), 0.0)
        self.budgets.put("namespace/other", Owner("quota", "q"), Limits(), 0.0)
        self.guests = Guests()
        self.policies = {"baseline": {"level": "baseline"}, "restricted": {"level": "restricted"}}
        self.policies |= policies or {}
        for name, spec in self.policies.items():
            self.guests.hear(kinds.POLICY, {"metadata": {"name": name}, "spec": spec}, False)
        self._compiled = {name: policy.read(name, spec) for name, spec in self.policies.items()}
        self.doing = Doing(self)
        table = self.doing.all()
        rooms = gate.Rooms(
            table,
            self.rules,
            self.journal,
            self.budgets,
            lambda guest: (f"namespace/{guest.namespace}", *reversed(guest.parents), guest.uid),
            self.turn,
            dict.fromkeys(
                (execing.ON_A_FILE, execing.WRITING, execing.APPENDING),
                replace(table["exec"], facts=execing.about_file),
            ),
        )
        self.gate = gate.Gate(rooms)
        self.kernel = Kernel(self.gate.call, self.guests, self.rules, self.audit, self.counters, "1.2.3")
        self._doors: set[str] = set()
        self._stack = contextlib.AsyncExitStack()

    def rules(self, guest: Guest) -> Any:
        return self._compiled[guest.policy_name]

    @contextlib.asynccontextmanager
    async def turn(self, route: str, guest: Guest, tokens: int) -> Any:
        yield self

    def charge(self, tokens: int) -> None:
        pass

    async def audit(self, uids: list[str], after: int, limit: int) -> Any:
        return await self.journal.read_apart(
            lambda conn: journal_reading.newest(conn, uids, after=after, limit=limit)
        )

    async def counters(self, box_id: str) -> dict[str, int]:
        return {"memoryBytes": 1000, "memoryPeakBytes": 2000, "cpuUsec": 5, "pids": 2, "oomKills": 0}

    def agent(
        self,
        name: str,
        *,
        namespace: str = "default",
        policy_name: str = "baseline",
        owner: str = "",
        phase: str = "Running",
        **spec: Any,
    ) -> str:
        """Heard of, as if the store had told. Its uid."""
        uid = f"uid-{namespace}-{name}"
        references = [{"kind": "Agent", "uid": owner, "controller": True}] if owner else []
        limits = {"cpu": "2", "memory": "1Gi", "pids": 100}
        obj = {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": uid,
                "generation": 1,
                "ownerReferences": references,
            },
            "spec": {"policyRef": {"name": policy_name}, "resources": {"limits": limits}, **spec},
            "status": {"phase": phase, "boxID": f"{uid}-1", "attempt": 1, "startedAt": NOW},
        }
        self.guests.hear(kinds.AGENT, obj, False)
        self.budgets.put(uid, Owner("agent", name), Limits(), 0.0)
        return uid

    def gone(self, uid: str) -> None:
        obj = self.guests.of(uid)
        assert obj is not None
        self.guests.hear(kinds.AGENT, obj, True)

    async def client(self, uid: str, host: Host | None = None) -> Client:
        """A connection through the door of this agent."""
        path = str(self.folder / f"{uid}.sock")
        if uid not in self._doors:
            self._doors.add(uid)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            listener.listen(16)
            service = agentos.service(self.kernel, lambda: self.guests.find(f"{uid}-1"), host=host)
            door = Door([listener.detach()], {"frames": service.connection})
            door.open()
            self._stack.push_async_callback(service.close)
            self._stack.push_async_callback(door.close)
        client = Client(*await asyncio.open_unix_connection(path, limit=2**22))
        self._stack.push_async_callback(client.close)
        return client

    def records(self) -> list[tuple[str, str, str]]:
        def read(conn: Any) -> list[tuple[str, str, str]]:
            rows = conn.execute("SELECT agent, method, status FROM records WHERE method <> '' ORDER BY id")
            return [tuple(row) for row in rows]

        return self.journal.read(read)

    async def close(self) -> None:
        await self._stack.aclose()
        self.journal.close()


class Doing:
    """Handlers that do what the schema says, in dictionaries."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ids = itertools.count(1)
        self.state: dict[tuple[str, str], Any] = {}
        self.mail: dict[str, list[dict[str, Any]]] = {}
        self.events: list[dict[str, Any]] = []
        self.asked: list[tuple[str, Params]] = []  # of calls that tests look at
        self.runtimes: list[str] = []  # that spawns may have in place of their parents'
        self.files: dict[str, str] = {}
        self.hold = asyncio.Event()
        self.hold.set()
        self.held = asyncio.Queue[str]()
        self.think_answer: dict[str, Any] | Exception = {}
        self.exec_answer: dict[str, Any] = {}

    def all(self) -> dict[str, methods.Method]:
        return {
            name: methods.Method(
                name,
                methods.recording(name),
                methods.parser(name),
                self._local(name, handle),
                self._facts(name),
            )
            for name, handle in {
                "noop": self.noop,
                "hello": self.hello,
                "think": self.think,
                "exec": self.exec,
                "http.request": self.http,
                "agent.spawn": self.spawn,
                "agent.kill": self.kill,
                "agent.pause": self.pause,
                "agent.resume": self.resume,
                "agent.list": self.list,
                "message.send": self.send,
                "message.recv": self.recv,
                "message.ack": self.ack,
                "state.put": self.put,
                "state.get": self.get,
                "state.delete": self.delete,
                "state.list": self.keys,
                "event.emit": self.emit,
                "event.subscribe": self.subscribe,
            }.items()
        }

    def _local(self, name: str, handle: Callable[[Context, Params], Awaitable[Any]]) -> methods.Handle:
        async def done(context: Context, params: Params) -> Done:
            result = await handle(context, params)
            if methods.recording(name) == "local":
                await context.transact(lambda tx: result)
            return Done(result, ONE_CALL)

        return done

    def _facts(self, name: str) -> methods.FactsOf:
        def facts(guest: Guest, params: Params) -> policy.Facts:
            if name == "think":
                return policy.Facts(models=(params.get("model", "m"),))
            if name == "exec":
                return policy.Facts(language=params.get("language", "argv" if "argv" in params else "python"))
            if name == "http.request":
                return policy.Facts(host="example.com", port=443, http_method=params["method"], path="/")
            if name == "message.send":
                namespace, _, to = params["to"].rpartition("/")
                return policy.Facts(
                    target=f"{namespace}/{to}", relations=policy.related(guest, namespace, to, ())
                )
            if name in ("agent.kill", "agent.pause", "agent.resume"):
                return policy.Facts(
                    target=f"{guest.namespace}/{params['name']}", relations=frozenset({"descendants"})
                )
            return policy.NOTHING

        return facts

    async def noop(self, context: Context, params: Params) -> Any:
        return {}

    async def hello(self, context: Context, params: Params) -> Any:
        return {"agent": context.call.guest.name}

    async def think(self, context: Context, params: Params) -> Any:
        self.asked.append(("think", params))
        self.held.put_nowait("think")
        await self.hold.wait()
        if isinstance(self.think_answer, Exception):
            raise self.think_answer
        usage = {"inputTokens": 3, "outputTokens": 4, "cachedTokens": 0, "costUsd": "0", "counted": False}
        told = {
            "text": "42",
            "message": {},
            "toolCalls": [],
            "finishReason": "stop",
            "model": "m",
            "usage": usage,
        }
        return {**told, **self.think_answer}

    async def exec(self, context: Context, params: Params) -> Any:
        self.asked.append(("exec", params))
        self.held.put_nowait("exec")
        await self.hold.wait()
        told = {
            "id": "1",
            "state": "Exited",
            "exitCode": 0,
            "reason": "Completed",
            "stdout": "",
            "stderr": "",
        }
        if "argv" in params:
            program, path = params["argv"][2], params["argv"][4]
            if "cat --" in program:
                if path not in self.files:
                    return told | {"exitCode": 1, "stderr": f"cat: {path}: No such file or directory\n"}
                told["stdout"] = self.files[path]
            elif ">>" in program:
                self.files[path] = self.files.get(path, "") + params["stdin"]
            else:
                self.files[path] = params["stdin"]
        return told | self.exec_answer

    async def http(self, context: Context, params: Params) -> Any:
        self.asked.append(("http.request", params))
        headers = {"content-type": "text/plain"}
        told = {"status": 200, "url": params["url"], "headers": headers, "body": "hi"}
        return told | {"encoding": "utf-8", "truncated": False}

    async def spawn(self, context: Context, params: Params) -> Any:
        self.asked.append(("agent.spawn", params))
        self.runtimes.append(context.call.runtime)
        guest = context.call.guest
        if self.world.guests.named(guest.namespace, params["name"]) is not None:
            raise errors.AlreadyExists("the name is taken")
        uid = self.world.agent(params["name"], namespace=guest.namespace, owner=guest.uid, **params["spec"])
        return {"name": params["name"], "uid": uid}

    async def kill(self, context: Context, params: Params) -> Any:
        self.asked.append(("agent.kill", params))
        found = self.world.guests.named(context.call.guest.namespace, params["name"])
        if found is None:
            return {"killed": False}
        self.world.gone(found["metadata"]["uid"])
        return {"killed": True}

    async def pause(self, context: Context, params: Params) -> Any:
        return {"paused": True}

    async def resume(self, context: Context, params: Params) -> Any:
        return {"resumed": True}

    async def list(self, context: Context, params: Params) -> Any:
        family = self.world.guests.family(context.call.guest.uid)
        return {"items": [{"name": one["metadata"]["name"], "uid": one["metadata"]["uid"]} for one in family]}

    async def send(self, context: Context, params: Params) -> Any:
        guest = context.call.guest
        message = {"id": str(next(self.ids)), "from": f"{guest.namespace}/{guest.name}", "deliveries": 1}
        message |= {"body": params["body"], "sentAt": NOW}
        self.mail.setdefault(params["to"], []).append(message)
        return {"id": message["id"]}

    async def recv(self, context: Context, params: Params) -> Any:
        guest = context.call.guest
        box = self.mail.get(f"{guest.namespace}/{guest.name}", [])
        return {"messages": box[: params["max"]]}

    async def ack(self, context: Context, params: Params) -> Any:
        guest = context.call.guest
        key = f"{guest.namespace}/{guest.name}"
        before = self.mail.get(key, [])
        self.mail[key] = [one for one in before if one["id"] not in params["ids"]]
        return {"acknowledged": len(before) - len(self.mail[key])}

    def _key(self, context: Context, params: Params) -> tuple[str, str]:
        guest = context.call.guest
        eldest = guest.parents[-1] if guest.parents else guest.uid
        whose = {"family": eldest, "agent": guest.uid, "attempt": f"{guest.uid}/1"}[params["scope"]]
        return f"{params['scope']}/{whose}", params.get("key", "")

    async def put(self, context: Context, params: Params) -> Any:
        self.asked.append(("state.put", params))
        self.state[self._key(context, params)] = params["value"]
        return {"version": 1}

    async def get(self, context: Context, params: Params) -> Any:
        key = self._key(context, params)
        return {"exists": key in self.state, "version": 1} | (
            {"value": self.state[key]} if key in self.state else {}
        )

    async def delete(self, context: Context, params: Params) -> Any:
        return {"deleted": self.state.pop(self._key(context, params), self) is not self}

    async def keys(self, context: Context, params: Params) -> Any:
        scope = self._key(context, params)[0]
        found = sorted(
            key
            for where, key in self.state
            if where == scope and key.startswith(params["prefix"]) and key > params["continue"]
        )
        page = found[: params["limit"]]
        told: dict[str, Any] = {"items": [{"key": key, "version": 1} for key in page]}
        return told | ({"continue": page[-1]} if len(found) > len(page) else {})

    async def emit(self, context: Context, params: Params) -> Any:
        guest = context.call.guest
        event = {
            "id": next(self.ids),
            "type": params["type"],
            "source": f"{guest.namespace}/{guest.name}",
            "data": params.get("data"),
            "time": NOW,
        }
        self.events.append(event)
        return {"id": event["id"]}

    async def subscribe(self, context: Context, params: Params) -> Any:
        told = 0
        for event in self.events:
            wanted = "*" in params["types"] or event["type"] in params["types"]
            if event["id"] > params["after"] and wanted and told < params["max"]:
                await context.emit(event)
                told += 1
        return {"delivered": told}
