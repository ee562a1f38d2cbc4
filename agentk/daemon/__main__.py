"""`python -m agentk.daemon run` keeps the daemon; `serve` is the daemon itself, started by the keeper."""

import argparse
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
    chosen = parser.parse_args(arguments)
    try:
        if chosen.verb == "run":
            return _keep(chosen)
        return _serve(chosen)
    except errors.AgentkError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)
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


if __name__ == "__main__":
    sys.exit(main())
