"""Tell agentk that the agent is alive: for `livenessProbe.heartbeat` in its manifest.

Runs in a jail, on Python 3.9 or newer, with the standard library alone.

    from agentk.sdk import heartbeat

    while work():
        heartbeat.beat()
"""

import os

DEFAULT_FILE = "/workspace/.heartbeat"


def beat(path: str = DEFAULT_FILE) -> None:
    """Touch the heartbeat file. Its age is what the probe reads. Raises OSError when the workspace is full."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.utime(fd)
    finally:
        os.close(fd)
