"""An agent's log as it is written, across restarts of the daemon: no line lost, none told twice.

Every line is asked for with its time, so that after a break the daemon can be asked for what came since.
"""

import time
from collections.abc import Iterator, Mapping

from agentk.api import errors, kinds
from agentk.client import client, watching

PAUSE_SECONDS = 0.2


def lines(
    api: client.Client, namespace: str, name: str, query: Mapping[str, str], timestamps: bool = False
) -> Iterator[bytes]:
    """Lines of the latest attempt until it has ended. Raises NotFound, BadRequest, Unavailable."""
    asked = {**query, "follow": "true", "timestamps": "true"}
    last, seen = b"", 0  # the time of the last line told, and how many lines had it
    lost_at: float | None = None
    attempt = _attempt(api, namespace, name)
    while True:
        skip = seen
        response = None
        try:
            response = api.logs(namespace, name, asked)
            for line in response.lines():
                lost_at = None
                stamp, _, text = line.partition(b" ")
                if stamp < last:
                    continue
                if stamp == last and skip:
                    skip -= 1
                    continue
                seen = seen + 1 if stamp == last else 1
                last, skip = stamp, 0
                yield line if timestamps else text
            if _is_over(api, namespace, name, attempt):
                return
        except errors.Unavailable:
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > watching.PATIENCE_SECONDS:
                raise
        finally:
            if response:
                response.close()
        if last:
            asked = {key: value for key, value in asked.items() if key not in ("tailLines", "sinceSeconds")}
            asked["sinceTime"] = last.decode("ascii", "replace")
        time.sleep(PAUSE_SECONDS)


def _attempt(api: client.Client, namespace: str, name: str) -> int:
    status = api.get(kinds.AGENT, namespace, name).get("status") or {}
    return int(status.get("attempt") or 0)


def _is_over(api: client.Client, namespace: str, name: str, attempt: int) -> bool:
    """Whether the stream ended because the attempt did, not because the daemon is going."""
    try:
        status = api.get(kinds.AGENT, namespace, name).get("status") or {}
    except errors.NotFound:
        return True
    ended = int((status.get("lastTermination") or {}).get("attempt") or 0)
    now = int(status.get("attempt") or 0)
    return status.get("phase") in kinds.FINAL_PHASES or ended >= max(attempt, 1) or now > max(attempt, 1)
