"""Which Python a box gets, and whether its uid can read it.

The host's /usr/bin/python3 when it is 3.9 or newer, for /usr is in every box anyway; else the tree of the Python we
run on (or the one a Runtime names), shown at /opt/python. A tree the box's uid cannot read is refused in words.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from agentk.api import errors

OLDEST = (3, 9)  # what the SDK supports
HOST = Path("/usr/bin/python3")
INSIDE = "/opt/python"
_VERSION = re.compile(r"python(\d+)\.(\d+)")
_VERSION_SECONDS = 5
_ALL_MAY_USE = 0o005  # read and execute, or enter


def choose(prefix: str, host_uid: int) -> tuple[str, str]:
    """The interpreter's path inside the box, and the prefix to show at /opt/python ("" when none is needed).

    Two empty strings: there is none. Raises RuntimeRefused for a prefix that cannot serve.
    """
    if not prefix:
        if _is_new_enough(HOST):
            return str(HOST), ""
        tree = Path(os.path.realpath(sys.base_prefix))
        if not (tree / "bin" / "python3").exists():
            return "", ""
    else:
        tree = Path(os.path.realpath(prefix))
    if tree == Path("/usr") or Path("/usr") in tree.parents:
        return str(tree / "bin" / "python3"), ""
    _check(tree, host_uid)
    return f"{INSIDE}/bin/python3", str(tree)


def _check(tree: Path, host_uid: int) -> None:
    if tree == Path("/"):
        raise errors.RuntimeRefused("/ is no Python prefix: a box would see the whole host", hint="name one")
    hint = f"chmod -R o+rX {tree}, or install the system's own: apt-get install python3"
    program = tree / "bin" / "python3"
    if not program.exists():
        raise errors.RuntimeRefused(
            f"{tree} holds no bin/python3", hint="name a Python prefix, as in /usr/local"
        )
    real = Path(os.path.realpath(program))
    if tree not in real.parents:
        raise errors.RuntimeRefused(
            f"{program} leads out of its tree, to {real}", hint="name the prefix of the real interpreter"
        )
    if host_uid < 0:
        return  # the box's uid is ours
    for path in (tree, tree / "bin", real, tree / "lib"):
        seen = path.stat()
        if seen.st_uid != host_uid and seen.st_mode & _ALL_MAY_USE != _ALL_MAY_USE:
            raise errors.RuntimeRefused(f"the box's user cannot read the Python at {path}", hint=hint)


def _is_new_enough(program: Path) -> bool:
    real = Path(os.path.realpath(program))
    found = _VERSION.fullmatch(real.name)
    if found is None and real.exists():
        found = _VERSION.fullmatch(_asked(real))
    return found is not None and real.exists() and (int(found[1]), int(found[2])) >= OLDEST


def _asked(program: Path) -> str:
    code = "import sys; print('python%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run(
            [program, "-I", "-S", "-c", code],
            capture_output=True,
            timeout=_VERSION_SECONDS,
            check=False,
            env={},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip()
