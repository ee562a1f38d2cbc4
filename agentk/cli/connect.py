"""The daemon of this user, started on first use."""

import os

from agentk.client import client
from agentk.data import places


def here() -> places.Places:
    return places.places(os.environ, os.getuid())


def connect(starts: bool = True, timeout_seconds: float | None = client.ANSWER_SECONDS) -> client.Client:
    """A client of this user's daemon. `starts`: the first request starts a daemon that is not running."""
    where = here()

    def on_down() -> None:
        from agentk.client import lifecycle  # only when it is down: its imports are not free

        lifecycle.ensure_daemon(where, os.environ)

    return client.Client(where.socket, on_down if starts else None, timeout_seconds)
