"""The process that counts tokens: `python -I -m agentk.llm.tokenizing_main FD`. Lists of texts in, numbers out.

It reads what agents and strangers wrote, with a library that may fail on some of it, so it has nothing: no network, no
files but its libraries. Tokenizers are those that LiteLLM ships as files; none is ever fetched.
"""

import functools
import hashlib
import importlib.util
import os
import socket
from pathlib import Path
from typing import Any

import tiktoken
import tiktoken.load
from tiktoken import model as names

from agentk.apart import confining, frames, inside

MEMORY_BYTES = 2 * 1024**3
_PIECE_CHARS = (
    2_048  # its expressions break on long runs of blanks; parts never have fewer tokens than the whole
)
_FOLDER = "litellm_core_utils/tokenizers"


class Unshipped(Exception):
    """A tokenizer that is not among the shipped files."""


def folder() -> Path | None:
    """Where LiteLLM has its files, without importing it."""
    found = importlib.util.find_spec("litellm")
    return Path(found.origin).parent / _FOLDER if found and found.origin else None


def tokenizer_of(model: str) -> str:
    """The name of the tokenizer of a model; "" when there is none here."""
    try:
        return names.encoding_name_for_model(model.rpartition("/")[2])
    except KeyError:
        return ""


@functools.lru_cache(maxsize=4)
def encoding(name: str) -> tiktoken.Encoding:
    """Raises Unshipped."""
    try:
        return tiktoken.get_encoding(name)
    except (Unshipped, ValueError, OSError) as error:
        raise Unshipped(name) from error


def count(name: str, text: str) -> int:
    """Tokens of a text, piece by piece; of what its library breaks on, as many as it has bytes."""
    used = encoding(name)
    total = 0
    for at in range(0, len(text), _PIECE_CHARS):
        piece = text[at : at + _PIECE_CHARS]
        try:
            total += len(used.encode_ordinary(piece))
        except Unshipped:
            raise
        except BaseException:  # noqa: BLE001 - a panic of its Rust is no Exception
            total += len(piece.encode("utf-8", "replace"))
    return total


def counted(models: list[str], texts: list[str]) -> dict[str, Any]:
    """The most that any of these models reads of each text. Without a name: one of them has no tokenizer here."""
    told = sorted({tokenizer_of(model) for model in models})
    try:
        if not told or not all(told):
            return {"name": "", "counts": []}
        counts = [max(count(name, text) for name in told) for text in texts]
        for name in told:
            encoding(name)
    except Unshipped:
        return {"name": "", "counts": []}
    return {"name": " and ".join(told), "counts": counts}


def fetch_nothing(where: Path | None) -> None:
    """Files of the folder alone are read, and no address is. What it reads is checked by its digest, as if fetched."""
    os.environ["TIKTOKEN_CACHE_DIR"] = ""  # a cache would be written, too

    def shipped(blobpath: str) -> bytes:
        name = hashlib.sha1(blobpath.encode(), usedforsecurity=False).hexdigest()
        if where is None or not (where / name).is_file():
            raise Unshipped(blobpath)
        return (where / name).read_bytes()

    tiktoken.load.read_file = shipped


def serve(talk: socket.socket) -> None:
    talk.sendall(frames.pack(frames.READY))
    with talk.makefile("rb") as asked:
        while message := frames.read_waiting(asked):
            made = counted(list(message["models"]), list(message["texts"]))
            talk.sendall(frames.pack({"t": "counted", "id": message["id"], **made}))


def main() -> None:
    (talk,) = inside.begin(MEMORY_BYTES)
    fetch_nothing(folder())
    try:
        confining.confine()
    except OSError as error:
        talk.sendall(frames.failed(error))
        return
    serve(talk)


if __name__ == "__main__":
    main()
