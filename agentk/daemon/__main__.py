"""`python -m agentk.daemon run` keeps the daemon; `serve` is the daemon itself, started by the keeper.

`doctor` and `restore` are what the command line cannot do through a daemon that does not run.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from agentk.api import errors
from agentk.data.places import Places, places

_EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code; prints what went wrong to stderr in one place."""
    parser = argparse.ArgumentParser(prog="python -m agentk.daemon", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="start and keep the launcher and the daemon, in the foreground")
    run.add_argument("--config", type=Path, help="YAML file; default: AGENTK_CONFIG, else the usual places")
    run.add_argument("--ready-fd", type=int, default=-1, help=argparse.SUPPRESS)
    run.add_argument("--life-fd", type=int, default=-1, help=argparse.SUPPRESS)
    serve = verbs.add_parser("serve", help="the daemon itself; the keeper starts it")
    for name in ("--state", "--run"):
        serve.add_argument(name, type=Path, required=True)
    serve.add_argument("--socket-fd", type=int, required=True)
    serve.add_argument("--owner-uid", type=int, required=True)
    serve.add_argument("--ready-fd", type=int, default=-1)
    serve.add_argument("--config-fd", type=int, default=-1)
    serve.add_argument("--config-name", default="")
    verbs.add_parser("doctor", help="what this host can hold agents to, as JSON")
    restore = verbs.add_parser(
        "restore", help="put the objects of a backup in place; the daemon must not run"
    )
    restore.add_argument("file", type=Path)
    restore.add_argument("--without-memory", action="store_true")
    chosen = parser.parse_args(arguments)
    act = {"run": _keep, "serve": _serve, "doctor": _doctor, "restore": _restore}[chosen.verb]
    try:
        return act(chosen)
    except errors.AgentkError as error:
        print(f"error: {error}", file=sys.stderr)
        if chosen.verb == "serve" and chosen.ready_fd >= 0:
            with contextlib.suppress(OSError):  # who waits for us is told why we are not ready
                os.write(chosen.ready_fd, str(error).encode())
        return _EXIT_CONFIG


def _keep(chosen: argparse.Namespace) -> int:
    from agentk.daemon import keeper

    config = chosen.config or keeper.usual_config(os.environ, os.getuid())
    where = places(os.environ, os.getuid())
    return keeper.Keeper(where, config, ready_fd=chosen.ready_fd, life_fd=chosen.life_fd).run()


def _serve(chosen: argparse.Namespace) -> int:
    from agentk.daemon import house, settings

    text = ""
    if chosen.config_fd >= 0:
        with os.fdopen(chosen.config_fd, encoding="utf-8") as file:
            text = file.read()
    chosen_settings = settings.load(text, chosen.config_name, os.environ)
    start = house.Start(chosen.socket_fd, chosen.owner_uid, chosen.ready_fd)
    return house.run(Places(chosen.state, chosen.run), chosen_settings, start)


def _doctor(_: argparse.Namespace) -> int:
    from agentk.runtime import probing

    found = probing.findings(places(os.environ, os.getuid()))
    ok = all(finding.ok for finding in found if finding.needed)
    print(json.dumps({"ok": ok, "findings": [dataclasses.asdict(finding) for finding in found]}))
    return 0 if ok else 1


def _restore(chosen: argparse.Namespace) -> int:
    from agentk.daemon import restoring

    for notice in restoring.restore(
        places(os.environ, os.getuid()), chosen.file, memory=not chosen.without_memory
    ):
        print(notice)
    return 0


if __name__ == "__main__":
    sys.exit(main())
