"""Files of JSON lines with pages: written whole or not at all, and read a batch at a time."""

import base64
import json
import os
import secrets
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from agentk.api import errors
from agentk.cli import usage

PAGE_CHARS = 1024 * 1024
_LINE_BYTES = 4 * 1024 * 1024
_BATCH_BYTES = 2 * 1024 * 1024  # of one request; a line more may fit


def content(line: dict[str, Any]) -> bytes:
    """What the page of a line holds, as it was kept."""
    if "contentBase64" in line:
        return base64.b64decode(line["contentBase64"])
    return str(line["content"]).encode()


def write(lines: Iterable[Any], file: Path | None) -> int:
    """To stdout, or to a file that is there when it is whole; how many pages."""
    if file is None:
        return _written(lines, sys.stdout.buffer)
    half = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            many = _written(lines, out)
        half.rename(file)
    except OSError as error:
        raise errors.BadRequest(f"{file} cannot be written: {error.strerror}") from error
    finally:
        half.unlink(missing_ok=True)
    return many


def batches(file: str) -> Iterator[str]:
    """Lines in base64, those of one request each, every batch with the first line in front."""
    try:
        with open(0 if file == "-" else file, "rb", closefd=file != "-") as lines:
            yield from _batches(lines)
    except OSError as error:
        raise usage.Usage(f"{file}: {error.strerror}") from error


def _batches(lines: Any) -> Iterator[str]:
    head = lines.readline(_LINE_BYTES).strip()
    if not head:
        raise usage.Usage("the file is empty", hint="agentk memory export writes such files")
    batch, size, sent = list[bytes](), 0, False
    while line := lines.readline(_LINE_BYTES + 1):
        if len(line) > _LINE_BYTES:
            raise usage.Usage(f"a line has more than {_LINE_BYTES} bytes")
        if line.strip():
            batch.append(line.strip())
            size += len(line)
        if size > _BATCH_BYTES:
            yield _packed(head, batch)
            batch, size, sent = [], 0, True
    if batch or not sent:  # a file of one line is looked at, too
        yield _packed(head, batch)


def _packed(head: bytes, batch: list[bytes]) -> str:
    return base64.b64encode(b"\n".join((head, *batch))).decode()


def _written(lines: Iterable[Any], out: Any) -> int:
    many = -1  # the first says whose they are
    for line in lines:
        many += 1
        out.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
    out.flush()
    return max(0, many)
