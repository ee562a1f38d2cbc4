"""The sentence model of this daemon: a process of its own, started when it is first needed, ended when it is idle.

One request at a time. A process that dies, says nonsense or takes too long is ended, and the next request has another;
its caller hears Unavailable, and pages are kept without a vector until later.
"""

import asyncio
import base64
import binascii
import contextlib
import hashlib
import importlib.util
import json
import os
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentk.api import errors
from agentk.memory import pages, vectors

MAIN = "agentk.memory.sentence_main"
_START_SECONDS, _ANSWER_SECONDS = 60.0, 120.0
_IDLE_SECONDS = 600.0
_LINE_BYTES = 16 * 1024 * 1024
_HEADER_BYTES = 4 * 1024 * 1024
_HINT = "sentenceModel of the daemon's configuration names a folder with a model: agentk explain config"


class Sentences:
    def __init__(self, folder: str) -> None:
        """`folder`: of a model, "" for none."""
        self._folder = folder
        self.name = _name(Path(folder)) if folder else ""
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def embed(self, texts: Sequence[str]) -> tuple[bytes, ...]:
        """As vectors are kept. Raises Unavailable, or Unusable for what is no vector."""
        if not self._folder:
            raise errors.Unavailable("this daemon has no sentence model", hint=_HINT)
        async with self._turn:
            if self._idle is not None:
                self._idle.cancel()
            try:
                told = await self._asked(texts)
            except BaseException:
                await self._end()
                raise
            self._idle = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._kill)
        made = tuple(vectors.packed(_numbers(one)) for one in told)
        if len(made) != len(texts):
            raise pages.Unusable("the sentence model has not one vector for each text")
        return made

    async def close(self) -> None:
        """Repeatable."""
        if self._idle is not None:
            self._idle.cancel()
        await self._end()

    async def _asked(self, texts: Sequence[str]) -> list[Any]:
        process = self._process or await self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({"texts": list(texts)}).encode() + b"\n")
            await process.stdin.drain()
            told = await _line(process, _ANSWER_SECONDS)
        except OSError as error:
            raise errors.Unavailable(f"the sentence model's process ended: {error}") from None
        if not isinstance(told.get("vectors"), list):
            raise errors.Unavailable("the sentence model's process gave no vectors")
        return list(told["vectors"])

    async def _start(self) -> asyncio.subprocess.Process:
        missing = [name for name in ("numpy", "tokenizers") if importlib.util.find_spec(name) is None]
        if missing:
            raise errors.Unavailable(
                f"a sentence model needs {' and '.join(missing)}", hint="pip install 'agentk[sentences]'"
            )
        threads = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL")}
        plain = {key: os.environ[key] for key in ("PATH", "LANG", "HOME") if key in os.environ}
        process = self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-m", MAIN, self._folder),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**plain, **threads, "TOKENIZERS_PARALLELISM": "false"},
            limit=_LINE_BYTES,
        )
        told = await _line(process, _START_SECONDS)
        if not told.get("ready"):
            raise errors.Unavailable(
                f"the sentence model cannot be run: {told.get('error', 'no word')}", hint=_HINT
            )
        return process

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def _end(self) -> None:
        process = self._process
        self._kill()
        if process is not None:
            await process.wait()


async def _line(process: asyncio.subprocess.Process, seconds: float) -> dict[str, Any]:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(seconds):
            line = await process.stdout.readline()
        told = json.loads(line)
    except TimeoutError:
        raise errors.Unavailable(f"the sentence model did not answer within {seconds:g} s") from None
    except ValueError:
        raise errors.Unavailable("the sentence model's process ended, or made no sense") from None
    return told if isinstance(told, dict) else {}


def _numbers(packed: Any) -> list[float]:
    try:
        made = array("f", base64.b64decode(packed, validate=True))
    except (TypeError, ValueError, binascii.Error):
        raise pages.Unusable("the sentence model gave what is no vector") from None
    return made.tolist()


def _name(folder: Path) -> str:
    """The same as long as its vectors can be compared: of its files, without reading all of the large one."""
    digest = hashlib.sha256()
    try:
        for file in ("config.json", "tokenizer.json"):
            digest.update((folder / file).read_bytes())
        weights = folder / "model.safetensors"
        digest.update(str(weights.stat().st_size).encode())
        with weights.open("rb") as read:
            digest.update(read.read(_HEADER_BYTES))
    except OSError as error:
        raise errors.Invalid(
            f"sentenceModel {folder} cannot be read: {error.strerror}", field="sentenceModel", hint=_HINT
        ) from None
    return f"{folder.name[:100]}-{digest.hexdigest()[:12]}"
