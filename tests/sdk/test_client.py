"""The front that waits, against a real gate on a real socket."""

import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sdk.gate import Gate

from agentk.sdk import calls, client, errors, results

TOP = Path(__file__).resolve().parents[2]


def test_a_call_goes_there_and_back(gate: Gate) -> None:
    with client.connect(gate.path) as agent:
        assert agent.noop({"a": [1, None]}) == {"a": [1, None]}
        thought = agent.think("Say hi", max_tokens=5)
        assert str(thought) == "Say hi" and thought.usage == results.Usage(input_tokens=2)


def test_the_socket_is_found_by_its_variable(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTK_SOCKET", gate.path)
    with client.connect() as agent:
        assert agent.noop(1) == 1


def test_no_gate_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(errors.Disconnected, match="nowhere"):
        client.connect(str(tmp_path / "nowhere"))


def test_a_denial_is_raised_and_names_its_rule(gate: Gate) -> None:
    with client.connect(gate.path) as agent, pytest.raises(errors.Denied, match="rule r") as caught:
        agent.think("denied")
    assert caught.value.reason == "PolicyDenied" and caught.value.hint == "ask for less"


def test_an_answer_comes_in_pieces(gate: Gate) -> None:
    with client.connect(gate.path) as agent:
        answer = agent.stream(calls.think("one two three"))
        assert [piece.text for piece in answer] == ["one", "two", "three"]
        assert answer.result.text == "one two three" and list(answer) == []


def test_leaving_a_stream_takes_its_call_back(gate: Gate) -> None:
    with client.connect(gate.path) as agent:
        for left in ("with", "dropped"):
            stream = agent.stream(calls.think("wait for me"))
            assert next(stream).text == "wait"
            gate.arrived()
            if left == "with":
                stream.close()
            del stream
            assert agent.noop(1) == 1
            assert agent._core.busy is False
        with pytest.raises(errors.Disconnected), agent.stream(calls.think("wait")) as stream:
            agent.close()
            next(stream)


def test_state_is_a_dict(gate: Gate) -> None:
    with client.connect(gate.path) as agent:
        agent.state["a"], agent.state["b"], agent.shared["c"] = 1, [None], {"x": 2}
        assert dict(agent.state) == {"a": 1, "b": [None], "c": {"x": 2}} and len(agent.state) == 3
        assert agent.state.pop("a") == 1 and "a" not in agent.state and agent.state.get("a", 5) == 5
        with pytest.raises(KeyError):
            del agent.state["a"]


def test_a_lock_is_given_back_and_not_taken_twice(gate: Gate) -> None:
    with client.connect(gate.path) as agent:
        with agent.lock("db") as held:
            assert held.fence == 1
            with pytest.raises(TimeoutError, match="'db'"), agent.lock("db", wait_seconds=0):
                pass
        assert "lock" not in gate.state


def test_time_running_out_takes_the_call_back(gate: Gate) -> None:
    with client.connect(gate.path) as agent:
        with pytest.raises(TimeoutError, match="within"):
            agent.call(calls.think("wait"), timeout_seconds=0.01)
        assert not agent._core.busy and agent.noop(1) == 1


def test_many_threads_share_a_connection(gate: Gate) -> None:
    with client.connect(gate.path) as agent, ThreadPoolExecutor(16) as threads:
        waiting = threads.submit(agent.think, "wait")
        gate.arrived()
        texts = [f"{n} " * 2000 for n in range(200)]
        assert list(threads.map(agent.noop, texts)) == texts
        gate.go_on()
        assert waiting.result().text == "wait"


def test_a_call_larger_than_the_sockets_buffers_passes_while_others_answer(gate: Gate) -> None:
    with client.connect(gate.path) as agent, ThreadPoolExecutor(4) as threads:
        texts = [str(n) * 3_000_000 for n in range(4)]
        assert list(threads.map(agent.noop, texts)) == texts


def test_a_restart_is_survived_and_the_call_sent_again_with_its_key(gate: Gate) -> None:
    with client.connect(gate.path) as agent, ThreadPoolExecutor(2) as threads:
        waiting = [
            threads.submit(agent.think, "wait"),
            threads.submit(agent.call, calls.think("wait"), key="mine"),
        ]
        for _ in waiting:
            gate.arrived()
        gate.stop()
        gate.start()
        for _ in waiting:
            gate.arrived()
        gate.go_on()
        assert [one.result().text for one in waiting] == ["wait", "wait"]
    first, second = gate.seen[:2], gate.seen[2:]
    assert sorted(first) == sorted(second) and ("think", "mine") in first
    assert len({key for _, key in first}) == 2


def test_events_go_on_after_a_restart_where_they_were(gate: Gate) -> None:
    with client.connect(gate.path) as agent:
        events = agent.events(["tick"])
        assert [next(events).id for _ in range(2)] == [1, 2]
        gate.arrived()
        gate.stop()
        gate.start()
        assert [next(events).id for _ in range(2)] == [3, 4]
        assert agent.noop(1) == 1


def test_calls_made_while_the_gate_is_away_wait_for_it(gate: Gate) -> None:
    with client.connect(gate.path) as agent, ThreadPoolExecutor(1) as threads:
        gate.stop()
        waiting = threads.submit(agent.noop, 7)
        gate.start()
        assert waiting.result() == 7


def test_patience_ends(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    with client.connect(str(tmp_path / "s"), patience_seconds=0.1) as agent:
        listener.accept()[0].close()
        listener.close()
        for _ in range(2):
            with pytest.raises(ConnectionError, match="cannot be reached"):
                agent.noop()


def test_what_is_no_gate_is_not_believed(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()

    def babble() -> None:
        while True:
            try:
                connected, _ = listener.accept()
            except OSError:
                return
            with connected:
                connected.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    thread = threading.Thread(target=babble)
    thread.start()
    with client.connect(str(tmp_path / "s"), patience_seconds=0.2) as agent, pytest.raises(ConnectionError):
        agent.noop()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_closing_ends_what_waits(gate: Gate) -> None:
    agent = client.connect(gate.path)
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(agent.think, "wait") for _ in range(2)]
        for _ in waiting:
            gate.arrived()
        agent.close()
        agent.close()
        for one in waiting:
            with pytest.raises(errors.Disconnected):
                one.result()
    with pytest.raises(errors.Disconnected):
        agent.noop()


@pytest.mark.parametrize(
    "module", ["client", "aio", "calls", "errors", "wire", "core", "session", "modules", "skills"]
)
def test_the_standard_library_is_enough(module: str) -> None:
    code = f"import sys; sys.path.insert(0, sys.argv[1]); import agentk.sdk.{module}"
    subprocess.run([sys.executable, "-I", "-S", "-c", code, str(TOP)], check=True)


def runs(python: Path | str) -> bool:
    try:
        return subprocess.run([python, "-c", ""], capture_output=True).returncode == 0
    except OSError:
        return False


def test_it_runs_on_the_oldest_python_there_is(gate: Gate) -> None:
    found: list[Path | str] = [*Path.home().glob(".pyenv/versions/3.9*/bin/python3.9"), "python3.9"]
    python = next((path for path in found if runs(path)), None)
    if python is None:
        pytest.skip("there is no Python 3.9 here")
    code = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from agentk.sdk import aio, calls, client
with client.connect(sys.argv[2]) as agent:
    print(agent.noop("sync"), [piece.text for piece in agent.stream(calls.think("a b"))])
async def main():
    async with await aio.connect(sys.argv[2]) as agent:
        print(await agent.noop("async"), [piece.text async for piece in agent.stream(calls.think("c d"))])
asyncio.run(main())
"""
    said = subprocess.run(
        [python, "-I", "-S", "-W", "error", "-c", code, str(TOP), gate.path],
        capture_output=True, text=True,
    )  # fmt: skip
    assert said.stdout == "sync ['a', 'b']\nasync ['c', 'd']\n", said.stderr
