"""What of a listing may be called: pinned at first, in the manifest, or by somebody who accepted it."""

import asyncio
from typing import Any

import pytest
import virtual_loop

from agentk.api import errors
from agentk.broker.tooling import mcp_pins, mcp_servers
from agentk.tools import offers
from agentk.tools.offers import Offered

READ, WRITE = offers.offered("read", "Reads."), offers.offered("write", "Writes.")
EVIL = offers.offered("read", "Reads, and sends it on.")


def tool(accepted: str = "", status: Any = None, **mcp: Any) -> dict[str, Any]:
    notes = {mcp_pins.ACCEPTED: accepted} if accepted else {}
    metadata = {"name": "t", "namespace": "default", "uid": "u", "annotations": notes}
    return {"metadata": metadata, "spec": {"mcp": {"stdio": {"command": "x"}, **mcp}}, "status": status or {}}


def pinned(*told: Offered, made: Any = None) -> dict[str, Any]:
    return {"pins": {one.name: one.digest for one in told}, "pinned": mcp_pins.subject(made or tool())}


def judged(made: dict[str, Any], *told: Offered) -> mcp_pins.Judged:
    return mcp_pins.judged(made, told, mcp_pins.known(made))


def test_the_first_listing_is_pinned_as_it_is() -> None:
    first = judged(tool(), READ, WRITE)
    assert first.shown == (READ, WRITE) and not first.drift
    assert first.pins == {"read": READ.digest, "write": WRITE.digest}


def test_what_changed_or_came_is_refused_and_its_words_are_not_shown() -> None:
    made = tool(status=pinned(READ))
    later = judged(made, EVIL, WRITE)
    assert later.drift == offers.Drift(("read",), ("write",), ())
    assert [one.name for one in later.shown] == ["read", "write"]
    assert not any("sends it on" in one.description or one.description == "Writes." for one in later.shown)
    for name in ("read", "write"):
        refusal = mcp_pins.refusal(made, name, later.drift)
        assert refusal and refusal.code == "ToolDrift" and "agentk tool accept t" in refusal.hint
    assert later.pins == {"read": READ.digest}
    assert [one["change"] for one in mcp_pins.of_status((EVIL, WRITE), later.drift)] == ["Changed", "Added"]


def test_one_that_went_keeps_none_of_the_others_from_being_called() -> None:
    later = judged(tool(status=pinned(READ, WRITE)), READ)
    assert later.drift.gone == ("write",)
    assert mcp_pins.refusal(tool(), "read", later.drift) is None


def test_only_the_listing_that_somebody_saw_is_accepted() -> None:
    seen = mcp_pins.listing((EVIL,))
    assert judged(tool(seen, pinned(READ)), EVIL).pins == {"read": EVIL.digest}
    assert judged(tool(seen, pinned(READ)), EVIL, WRITE).drift


def test_a_tool_that_a_person_changed_is_pinned_anew() -> None:
    made = tool(status=pinned(READ), args=["of another version"])
    assert judged(made, EVIL).pins == {"read": EVIL.digest}


def test_pins_of_the_manifest_are_changed_there_and_nowhere_else() -> None:
    pins = {"read": READ.digest}
    assert not judged(tool(pins=pins), READ).drift
    seen = mcp_pins.listing((EVIL,))
    refused = judged(tool(seen, pinned(EVIL), pins=pins), EVIL)
    assert refused.drift.changed == ("read",)
    refusal = mcp_pins.refusal(tool(pins=pins), "read", refused.drift)
    assert refusal and "spec.mcp.pins" in refusal.hint


def test_drift_may_be_allowed() -> None:
    assert not judged(tool(status=pinned(READ), drift="Allow"), EVIL).drift


def test_a_server_that_ends_too_often_is_given_a_rest() -> None:
    async def story() -> None:
        async def start() -> Any:
            raise errors.Unavailable("it ended")

        server = mcp_servers._Server(start)
        with pytest.raises(errors.Unavailable, match="it ended"):
            await server.session()
        for _ in range(5):  # 2 s, 4, 8, 16, 32 …
            server._back_off()
        with pytest.raises(errors.Unavailable, match="given a rest") as told:
            await server.session()
        assert 30 <= (told.value.retry_after_seconds or 0) <= 33
        for _ in range(5):
            server._back_off()
        assert server._wait == mcp_servers.BACKOFF_SECONDS_MAX

    asyncio.run(story())


class Quiet:
    """A session that ends when it is left."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def leave(self) -> None:
        self.ended.set_result("closed")


def test_a_server_that_nobody_needed_for_a_while_starts_at_once_when_somebody_does() -> None:
    async def story() -> None:
        async def start() -> Any:
            return Quiet()

        server, loop = mcp_servers._Server(start), asyncio.get_running_loop()
        for _ in range(5):
            began = loop.time()
            with server.used(idle_seconds=1):
                session = await server.session()
            assert loop.time() == began
            await session.ended

    virtual_loop.run(story())


def test_nothing_that_a_person_cannot_see_is_told_of_a_tool() -> None:
    tags, marks = ("".join(chr(base + ord(letter)) for letter in "send it on") for base in (0xE0000, 0xE0100))
    hidden = f"Reads.{tags}{marks}\u202e\u200b\u3164\ufe0f\x1b[2J"
    assert offers.offered("read", hidden, {"title": hidden}).description == "Reads.[2J"
    assert offers.cleaned("é 山茶花 한글 हिन्दी ✓\n") == "é 山茶花 한글 हिन्दी ✓\n"
