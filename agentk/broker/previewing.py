"""Looks at the files that a call names, from a jail beside the agent's: no process of the host opens a guest's path.

What looks is the jail's own sh and sha256sum, found where the host or the image keeps its programs, whatever the
agent's environment says. Whoever owns the files may change them between a look and what is done: that is the agent's
own work, within its own rights, and the arguments themselves are bound by the digest of the call.
"""

import asyncio
import posixpath
from collections.abc import Mapping, Sequence
from typing import Protocol

from agentk.api import errors
from agentk.broker import exec_orders, previews
from agentk.broker.methods import Params
from agentk.broker.previews import File, Preview
from agentk.broker.words import Guest
from agentk.runtime import box

_SECONDS = 30.0
_KEPT_BYTES = 128 * 1024  # of a file that is written: what is longer is told by its digest
_SAID_BYTES = 64 * 1024
# Nothing of the agent's comes between: not its PATH, and no library of its own.
_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LD_PRELOAD": "", "LD_LIBRARY_PATH": "", "LD_AUDIT": "", "ENV": "", "BASH_ENV": "", "IFS": "",
}  # fmt: skip
# A line for each that is a file: which word it is, its digest and its length.
_LOOK = """\
i=0
for f do
  i=$((i+1))
  if [ -f "$f" ] && [ -r "$f" ]; then
    s=$(sha256sum < "$f") && n=$(wc -c < "$f") && echo "$i ${s%% *} $n" || exit 3
  fi
done
"""
# The same of one, and then what is in it.
_READ = _LOOK + f'if [ -f "$1" ]; then echo; head -c {_KEPT_BYTES + 1} "$1"; fi\n'


class Execute(Protocol):
    """As `jails.Jails.exec`."""

    async def __call__(
        self,
        box_id: str,
        argv: Sequence[str],
        timeout_seconds: float,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        output_bytes: int | None = None,
    ) -> box.ExecResult: ...


async def of_exec(execute: Execute, guest: Guest, params: Params) -> Preview:
    """The files that a command or a program names."""
    order = exec_orders.read(params)
    texts = params["argv"] if "argv" in params else [params["code"]]
    names = previews.words(texts)
    if not names:
        return previews.NOTHING
    found = _told(await _run(execute, guest, _LOOK, names, order.cwd), names)
    return Preview(tuple(found[: previews.FILES_MAX]))


async def of_write(execute: Execute, guest: Guest, params: Params, append: bool) -> Preview:
    """What becomes of one file: the last word of `argv` but one, where it is really kept."""
    path, content, cwd = params["argv"][-2], params["stdin"], exec_orders.read(params).cwd
    said = await _run(execute, guest, _READ, [path], cwd, _KEPT_BYTES + 1024)
    head, had, rest = said.partition(b"\n\n")
    found = _told(head, [path])
    old = rest if had else b""
    files = tuple(found) or (File(path),)
    if len(old) > _KEPT_BYTES or len(content) > _KEPT_BYTES:
        size = len(content.encode("utf-8", "replace"))
        verb = "appended to" if append else "written to"
        return Preview(files, f"{size} bytes are {verb} {path}, which is too long to be shown\n")
    before = old.decode("utf-8", "replace")
    after = before + content if append else content
    told = await asyncio.to_thread(previews.diff, path, before if found else None, after)
    return Preview(files, told)


async def _run(
    execute: Execute,
    guest: Guest,
    program: str,
    names: Sequence[str],
    cwd: str,
    output_bytes: int = _SAID_BYTES,
) -> bytes:
    """What it says. Raises when it cannot be known."""
    ran = await execute(
        guest.box_id,
        ["/bin/sh", "-c", program, "sh", *names],
        _SECONDS,
        env=_ENV,
        cwd=cwd,
        output_bytes=output_bytes,
    )
    if ran.timed_out:
        raise errors.Timeout("the files that this call names could not be looked at in time")
    if exec_orders.exit_code(ran) != 0:
        said = ran.stderr.decode("utf-8", "replace").strip().splitlines()
        raise errors.RuntimeRefused(
            f"the files that this call names cannot be looked at: {said[-1][:200] if said else 'sh failed'}",
            hint="a person is asked about files by their digest: the box needs sh, sha256sum, wc and head",
        )
    return ran.stdout


def _told(said: bytes, names: Sequence[str]) -> list[File]:
    found = []
    for line in said.decode("ascii", "replace").splitlines():
        number, digest, size = (*line.split(" "), "", "", "")[:3]
        if (
            number.isdigit()
            and 0 < int(number) <= len(names)
            and len(digest) == 64
            and size.strip().isdigit()
        ):
            found.append(File(posixpath.normpath(names[int(number) - 1]), digest, int(size)))
    return found
