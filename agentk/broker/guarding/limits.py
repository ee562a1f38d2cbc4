"""How much an agent gets: bytes of one call's output, and calls and bytes in a minute, with all that it spawned."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentk.api import errors
from agentk.broker.guarding import values
from agentk.broker.guarding.rails import Output, Rate

_SECONDS = 60


class Rates:
    """In memory: a daemon that starts anew begins a new minute."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._used: dict[str, dict[int, list[int]]] = {}  # uid → second → calls, bytes

    def take(self, uids: Sequence[str], rate: Rate, calls: int = 1) -> None:
        """One more call of all of these. Raises TooManyRequests; nothing is counted then."""
        now = int(self._now())
        for uid in uids:
            seconds = self._window(uid, now)
            used = [sum(one[at] for one in seconds.values()) for at in (0, 1)]
            if rate.calls is not None and used[0] + calls > rate.calls:
                raise _refused(f"{rate.calls} calls", seconds, now)
            if rate.bytes is not None and used[1] >= rate.bytes:
                raise _refused(f"{rate.bytes} bytes of output", seconds, now)
        self._add(uids, now, 0, calls)

    def add_bytes(self, uids: Sequence[str], size: int) -> None:
        self._add(uids, int(self._now()), 1, size)

    def keep(self, uids: Sequence[str]) -> None:
        there = set(uids)
        self._used = {uid: used for uid, used in self._used.items() if uid in there}

    def _add(self, uids: Sequence[str], now: int, at: int, amount: int) -> None:
        for uid in uids:
            self._window(uid, now).setdefault(now, [0, 0])[at] += amount

    def _window(self, uid: str, now: int) -> dict[int, list[int]]:
        seconds = self._used.setdefault(uid, {})
        for second in [one for one in seconds if one <= now - _SECONDS]:
            del seconds[second]
        return seconds


def _refused(what: str, seconds: Mapping[int, Any], now: int) -> errors.TooManyRequests:
    wait = max(1, min(seconds, default=now) + _SECONDS - now)
    return errors.TooManyRequests(
        f"guardrails: no more than {what} in a minute, of an agent and those it spawned",
        hint="wait, or ask for less",
        retry_after_seconds=wait,
    )


def cut(result: Any, output: Output) -> Any:
    """No more than may be told, and marked so. Raises TooLarge when nothing may be cut."""
    if not isinstance(result, Mapping):
        return result
    held = values.size(result)
    if held <= output.most_bytes:
        return result
    if not output.truncate:
        raise errors.TooLarge(
            f"guardrails: the output has {held} bytes, more than {output.most_bytes}", hint="ask for less"
        )
    told, left = dict(result), output.most_bytes
    if "content" in told:
        return _content(told, left)
    for name, flag in (("stdout", "stdoutTruncated"), ("stderr", "stderrTruncated"), ("body", "truncated")):
        if isinstance(told.get(name), str):
            short = shortened(told[name], left, whole=4)  # base64 stays base64
            told[flag] = bool(told.get(flag)) or len(short) < len(told[name])
            told[name] = short
            left -= len(short.encode("utf-8", "surrogatepass"))
    headers = told.get("headers")
    if isinstance(headers, Mapping) and values.size(headers) > output.most_bytes:
        told["headers"] = {}
    return told


def whole(output: Output) -> Output:
    """The same bound for what cannot be cut."""
    return Output(output.most_bytes, truncate=False)


def size(value: Any) -> int:
    return values.size(value)


def shortened(text: str, most: int, whole: int = 1) -> str:
    data = text.encode("utf-8", "surrogatepass")
    if len(data) <= most:
        return text
    most = max(0, most)
    return data[: most - most % whole].decode("utf-8", "ignore")


def _content(told: dict[str, Any], left: int) -> dict[str, Any]:
    kept = []
    for block in told["content"] if isinstance(told["content"], list) else ():
        held = values.size(block)
        if held <= left:
            kept.append(block)
            left -= held
        elif isinstance(block, Mapping) and isinstance(block.get("text"), str):
            kept.append({**block, "text": shortened(block["text"], left) + "… (cut by the guardrails)"})
            left = 0
        else:
            left = 0
    told["content"] = kept
    if "structured" in told and values.size(told["structured"]) > left:
        del told["structured"]
    return told
