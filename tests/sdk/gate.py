"""A tiny real gate: the shipped door and dialect, on a thread of its own, with a few calls that tests can steer."""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from agentk.api import errors
from agentk.broker.dialects.jsonrpc import Asked
from agentk.broker.dialects.jsonrpc_serving import Emit, JsonRpcService
from agentk.broker.door import Door


class Gate:
    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "gate.sock")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(128)
        self.seen: list[tuple[str, str]] = []  # method and key, as they came
        self.state: dict[str, Any] = {}
        self.answered: dict[str, Any] = {}  # by key
        self._arrivals = threading.Semaphore(0)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._go_on = asyncio.Event()
        self.start()

    def start(self) -> None:
        async def begin() -> None:
            self._service = JsonRpcService(self._answer)
            self._door = Door([self.listener.dup().detach()], {"jsonrpc": self._service.connection})
            self._door.open()

        self._do(begin())

    def stop(self) -> None:
        """As when the daemon goes: connections end, the listening socket stays."""

        async def end() -> None:
            await self._door.close()
            await self._service.close()

        self._do(end())

    def arrived(self) -> None:
        """Waits for the next call that parks."""
        assert self._arrivals.acquire(timeout=30)

    def go_on(self) -> None:
        self._loop.call_soon_threadsafe(self._go_on.set)

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.listener.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _answer(self, asked: Asked, emit: Emit) -> Any:
        self.seen.append((asked.method, asked.key))
        name = asked.method.replace(".", "_")
        answer: Callable[[dict[str, Any], Emit], Coroutine[Any, Any, Any]] = getattr(self, f"_{name}")
        return await answer(asked.params, emit)

    async def _noop(self, params: dict[str, Any], emit: Emit) -> Any:
        return params

    async def _think(self, params: dict[str, Any], emit: Emit) -> Any:
        """Streams the prompt word by word; parks after the first when it begins with "wait"."""
        words = params["prompt"].split()
        for word in words:
            if params.get("stream"):
                await emit({"text": word})
            if words[0] == "wait" and not self._go_on.is_set():
                self._arrivals.release()
                await self._go_on.wait()
        if words[0] == "denied":
            raise errors.Denied("rule r says no", hint="ask for less")
        return {
            "text": params["prompt"],
            "finishReason": "stop",
            "usage": {"inputTokens": len(words)},
            "new": 1,
        }

    async def _event_subscribe(self, params: dict[str, Any], emit: Emit) -> Any:
        after = params.get("after", 0)
        for n in (after + 1, after + 2):
            await emit({"id": n, "type": "tick", "source": "ns/a", "data": None, "time": ""})
        self._arrivals.release()
        await self._go_on.wait()
        return {"delivered": 2, "lastId": after + 2}

    async def _state_put(self, params: dict[str, Any], emit: Emit) -> Any:
        self.state[params["key"]] = params["value"]
        return {"version": 1}

    async def _state_get(self, params: dict[str, Any], emit: Emit) -> Any:
        found = {"value": self.state[params["key"]]} if params["key"] in self.state else {}
        return {"exists": bool(found), "version": 1, **found}

    async def _state_delete(self, params: dict[str, Any], emit: Emit) -> Any:
        return {"deleted": self.state.pop(params["key"], self) is not self}

    async def _state_list(self, params: dict[str, Any], emit: Emit) -> Any:
        """One key a page."""
        keys = sorted(self.state)
        at = int(params.get("continue", 0))
        items = [{"key": key, "version": 1} for key in keys[at : at + 1]]
        return {"items": items, **({"continue": str(at + 1)} if at + 1 < len(keys) else {})}

    async def _lock_acquire(self, params: dict[str, Any], emit: Emit) -> Any:
        free = "lock" not in self.state
        self.state["lock"] = True
        return {"acquired": free, **({"token": "t", "fence": 1} if free else {})}

    async def _lock_release(self, params: dict[str, Any], emit: Emit) -> Any:
        return {"released": self.state.pop("lock", False)}
