"""What a guest was answered survives kill -9, mail, items and values alike. Real processes, a real journal."""

import asyncio
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.broker import tenants

# Four guests write at once; each line on stdout is what one of them was answered.
CHILD = """
import asyncio, json, pathlib, sys
from tests.broker import tenants

async def guest(there, who):
    for n in range(10**6):
        put = await there.call(who, "state.put", key=str(n % 20), value=[n, "p" * (n % 40 * 100)])
        print(json.dumps(["put", who, n, put["version"]]), flush=True)
        sent = await there.call(who, "message.send", to="reader", body=n)
        print(json.dumps(["sent", who, n, sent["id"]]), flush=True)
        queued = await there.call(who, "queue.put", queue=who, item=n, scope="agent")
        print(json.dumps(["queued", who, n, queued["id"]]), flush=True)
        lock = await there.call(who, "lock.acquire", name=str(n % 5), scope="agent", leaseSeconds=3600)
        print(json.dumps(["lock", who, n % 5, lock.get("token", "")]), flush=True)
        if n % 3 == 2:
            await there.call(who, "queue.ack", queue=who, ids=[queued["id"]], scope="agent")
            print(json.dumps(["acked", who, n, queued["id"]]), flush=True)

async def main():
    there = tenants.Tenants(pathlib.Path(sys.argv[1]))
    for name in ("a", "b", "c", "d", "reader"):
        there.hear(tenants.agent(name))
    print("[]", flush=True)
    await asyncio.gather(*(guest(there, who) for who in "abcd"))

asyncio.run(main())
"""


@pytest.mark.parametrize("seed", range(3))
def test_every_answer_is_true_after_kill_9(tmp_path: Path, seed: int) -> None:
    told = run_and_kill(tmp_path, random.Random(seed).uniform(0.05, 0.5))
    asyncio.run(look(tmp_path, told))


async def look(folder: Path, told: list[list[Any]]) -> None:
    there = tenants.Tenants(folder)
    for name in ("a", "b", "c", "d", "reader"):
        there.hear(tenants.agent(name))
    acked = {id for what, _, _, id in told if what == "acked"}
    mail = {one["id"]: one for one in await everything(there, "reader", "message.recv", {}, "messages")}
    for who in "abcd":
        params = {"queue": who, "scope": "agent"}
        items = [one["id"] for one in await everything(there, who, "queue.get", params, "items")]
        assert [id for id in items if id in acked] == []
        put = [id for what, of, _, id in told if (what, of) == ("queued", who) and id not in acked]
        # An item may have been acknowledged without the answer being heard: only the last of each guest.
        assert [id for id in put if id not in items] in ([], put[-1:])
        sent = [(n, id) for what, of, n, id in told if (what, of) == ("sent", who)]
        assert [mail[id]["body"] for _, id in sent] == [n for n, _ in sent]
        assert [one["body"] for one in mail.values() if one["from"] == f"d/{who}"][: len(sent)] == [
            n for n, _ in sent
        ]
        newest = {str(n % 20): (n, version) for what, of, n, version in told if (what, of) == ("put", who)}
        for key, (n, version) in newest.items():
            found = await there.call(who, "state.get", key=key)
            assert found["version"] >= version and found["value"][0] >= n
            assert len(found["value"][1]) == found["value"][0] % 40 * 100
        for name, token in {
            name: token for what, of, name, token in told if (what, of) == ("lock", who) and token
        }.items():
            assert (await there.call(who, "lock.release", name=str(name), token=token, scope="agent"))[
                "released"
            ]
    assert (await there.journal.verify()).ok
    await there.aclose()


async def everything(
    there: tenants.Tenants, who: str, method: str, params: dict[str, Any], answer: str
) -> list[Any]:
    found: list[Any] = []
    while more := (await there.call(who, method, max=100, **params))[answer]:
        found += more
    return found


def run_and_kill(folder: Path, seconds: float) -> list[list[Any]]:
    """Let a child write for a while; what its guests were answered before it died."""
    with subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"[]\n"
        lines: list[bytes] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            lines.append(child.stdout.readline())
        child.kill()
        lines += child.stdout.read().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith(b"\n")]
