"""What went wrong with an upstream, as the room's own error. Says what failed, never with which key.

An upstream's words are passed on, cut short, because they tell a guest what is wrong with its request; not when they
are about the key or the account, for providers quote parts of a key there.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from agentk.llm import asking, routes

ERROR_BYTES_MAX = 65_536
MESSAGE_MAX = 2_000
RETRY_AFTER_MAX = 3_600


async def of_response(
    response: aiohttp.ClientResponse, secrets: Sequence[str], deadline: float
) -> asking.Refused:
    """The upstream's own error, in either provider's shape, or plain text."""
    if 300 <= response.status < 400:
        return asking.Refused(
            f"the model's provider answered {response.status}: redirects are never followed",
            retryable=False,
            hint="write the final address as apiBase",
        )
    if response.status < 400:
        return asking.Refused(f"the model's provider answered {response.status}", retryable=False)
    body = b""
    try:
        async with asyncio.timeout_at(deadline):
            while len(body) < ERROR_BYTES_MAX and (piece := await response.content.readany()):
                body += piece
    except (aiohttp.ClientError, TimeoutError, OSError):
        pass  # its number is here, and says the most
    return told(response.status, body[:ERROR_BYTES_MAX], response.headers, secrets)


def told(status: int, body: bytes, headers: Mapping[str, str], secrets: Sequence[str]) -> asking.Refused:
    """From what an upstream answered. Pure."""
    if status in (401, 402, 403, 407):
        return asking.Refused(
            f"the model's provider refused the route's key or account ({status})",
            upstream_status=status,
            hint="check the Secret that the ModelRoute names",
        )
    error = _error(body)
    message = error.get("message")
    words = message if isinstance(message, str) and message else body.decode("utf-8", "replace").strip()
    for secret in secrets:
        words = words.replace(secret, "[redacted]")
    return asking.Refused(
        words[:MESSAGE_MAX] or f"the model's provider answered {status}",
        upstream_status=status,
        type=_word(error.get("type")),
        code=_word(error.get("code")),
        param=_word(error.get("param")),
        retry_after_seconds=_retry_after(headers),
    )


def unreached(wrong: BaseException, deployment: routes.Deployment) -> asking.Refused:
    """Nothing of an answer came. Trying again, or elsewhere, is right."""
    return asking.Refused(f"{_named(deployment)} {how(wrong)}", retryable=True)


def broken(what: str, deployment: routes.Deployment) -> asking.Refused:
    """An answer had begun, and is paid for: it is never asked for again."""
    return asking.Refused(f"{_named(deployment)} {what}", retryable=False)


def how(wrong: BaseException) -> str:
    """Plain words, without the address: it may hold what is nobody's business."""
    if isinstance(wrong, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return "has no certificate that this machine trusts"
    if isinstance(wrong, aiohttp.ClientConnectorDNSError):
        return "has a host name that cannot be resolved"
    if isinstance(wrong, aiohttp.ConnectionTimeoutError):
        return "took too long to accept a connection"
    if isinstance(wrong, aiohttp.ClientConnectorError):
        return "cannot be reached: does it run, and at the apiBase of its ModelRoute?"
    if isinstance(wrong, TimeoutError):
        return "took too long to answer"
    if isinstance(wrong, ValueError):
        return "has an apiBase that is no address"
    return "ended the connection before its answer was whole"


def _named(deployment: routes.Deployment) -> str:
    return f'the provider of "{deployment.group}"'


def _error(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(document, list) and document:  # Google's OpenAI-compatible servers wrap it so
        document = document[0]
    if not isinstance(document, Mapping):
        return {}
    error = document.get("error", document)
    return error if isinstance(error, Mapping) else {"message": error}


def _word(value: Any) -> str:
    return str(value)[:200] if isinstance(value, str | int) else ""


def _retry_after(headers: Mapping[str, str]) -> int | None:
    written = headers.get("Retry-After", "").strip()
    if not written.isascii() or not written.isdecimal() or len(written) > 9:
        return None  # the form with a date needs the provider's clock to be ours
    return min(int(written), RETRY_AFTER_MAX)
