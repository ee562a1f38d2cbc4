"""What is sent to a jail to read or call Python functions there, and what of its answer is believed. Pure.

The program that does it is `signatures`; here it is only text, and what it answers is a guest's.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentk.api import errors
from agentk.tools import offers, outputs, speaking
from agentk.tools.offers import Offered, Outcome

PYTHON = "python"
_ASIDE = "import sys\nsys.path[:] = [one for one in sys.path if one]\n"  # not what lies where it starts
_SAID_CHARS = 4000
_BEGINS = '{"result": '  # as json.dumps has it


def argv() -> list[str]:
    return [PYTHON, "-c", _ASIDE + _text()]


def order(files: Mapping[str, str], path: str, **asked: Any) -> bytes:
    """What the program reads: the modules' texts, and what is wanted of them."""
    told = {
        "files": {name: text for name, text in files.items() if name.endswith(".py")},
        "path": path,
        **asked,
    }
    return json.dumps(told).encode()


def offered(ran: outputs.Ran, functions: Sequence[str]) -> tuple[Offered, ...]:
    """Raises UpstreamError with what was wrong in the functions' own words."""
    try:
        told = _told(ran)
    except speaking.TooMany as error:
        raise errors.UpstreamError(f"its functions cannot be read: {error}") from None
    listed = told.get("offers")
    if "error" in told or not isinstance(listed, list):
        why = _short(told["error"]) if told.get("error") else f"no answer{_said(ran)}"
        raise errors.UpstreamError(f"its functions cannot be read: {why}")
    wanted = [one.rpartition(":")[2] for one in functions]
    if [one.get("name") if isinstance(one, dict) else None for one in listed] != wanted:
        raise errors.UpstreamError("its functions cannot be read: they are others than it names")
    try:
        return tuple(
            offers.offered(
                one["name"], one.get("description"), one.get("inputSchema"), one.get("outputSchema")
            )
            for one in listed
        )
    except offers.Unusable as wrong:
        raise errors.UpstreamError(f"its functions cannot be used: {wrong}") from None


def outcome(ran: outputs.Ran) -> Outcome:
    """What a function returned or raised."""
    if ran.why:
        return outputs.failed(ran)
    try:
        told = _told(ran)
    except speaking.TooMany:
        text = ran.stdout.decode("utf-8", "replace").strip()
        return outputs.many(text[len(_BEGINS) : -1] if text.startswith(_BEGINS) else text)
    except errors.UpstreamError:
        return outputs.failed(ran, f"it ended with exit code {ran.exit_code}, and without an answer")
    if "error" in told or "result" not in told:
        return outputs.made("", [_short(told.get("error", "it ended without an answer"))], wrong=True)
    result = told["result"]
    if isinstance(result, str):
        return outputs.made(result)
    text = json.dumps(result, ensure_ascii=False)
    return outputs.made(text if result is not None else "", structured=result)


def _told(ran: outputs.Ran) -> dict[str, Any]:
    try:
        told = speaking.parsed(ran.stdout.decode("utf-8", "replace"))
    except speaking.TooMany:
        raise
    except ValueError:
        told = None
    if not isinstance(told, dict):
        why = "it took too long" if ran.why == "DeadlineExceeded" else f"exit code {ran.exit_code}"
        raise errors.UpstreamError(f"its functions cannot be read: {why}{_said(ran)}")
    return told


def _said(ran: outputs.Ran) -> str:
    last = ran.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    return f" ({_short(last[0])})" if last else ""


def _short(text: Any) -> str:
    return offers.cleaned(str(text))[:_SAID_CHARS]


def _text() -> str:
    return (Path(__file__).parent / "signatures.py").read_text(encoding="utf-8")
