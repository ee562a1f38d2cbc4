"""The keeper's few words with a launcher: who is there, and end. Synchronous and small."""

import json
import os
import socket
from pathlib import Path

from agentk.api import errors
from agentk.runtime.launcher import processes, wire

_SECONDS = 30.0


def peer(path: Path) -> int | None:
    """Pid of the launcher that listens at `path`, None when nobody does."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_SECONDS)
        try:
            connection.connect(str(path))
        except OSError:
            return None
        pid = wire.peer(connection)[0]
    # a child of a launcher that was killed may hold its socket open for another moment
    return pid if processes.identify(pid) else None


def ask(path: Path, message: wire.Message) -> wire.Message:
    """One question, one answer. Raises the launcher's error, Unavailable when nobody answers."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_SECONDS)
        inbox = wire.Inbox()
        try:
            connection.connect(str(path))
            connection.sendall(json.dumps({"id": 1, **message}).encode() + b"\n")
            while True:
                data, fds = wire.receive(connection)
                for fd in fds:
                    os.close(fd)
                if not data:
                    raise errors.Unavailable("the launcher hung up")
                for told, _ in inbox.feed(data):
                    if told.get("id") == 1:
                        return _result(told)
        except OSError as error:
            raise errors.Unavailable(f"the launcher does not answer: {error}") from error


def end(path: Path, *, kill_boxes: bool) -> None:
    """End the launcher; its boxes first when `kill_boxes`. A launcher that keeps boxes and may not kill them stays."""
    ask(path, {"verb": "shutdown", "kill_boxes": kill_boxes, "if_idle": not kill_boxes})


def _result(told: wire.Message) -> wire.Message:
    if "error" in told:
        raise errors.from_status(told["error"])
    answer = told.get("ok")
    return answer if isinstance(answer, dict) else {}
