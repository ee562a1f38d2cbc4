"""`agentk import`: the usual file of MCP servers as Tools, printed or applied."""

import json
import os
import shutil
import subprocess
import sys
from typing import Annotated, Any

import typer

from agentk.api import errors, manifest
from agentk.cli import connect, manifests, options, sending, show, telling, tool_discovering
from agentk.client import mcpjson

app = typer.Typer(**options.APP)

_ASK_SECONDS = 60.0
_OURS = "{0}: takes the place of the Tool that agentk comes with; give it another name to keep both"


@app.command("import")
def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Such as .mcp.json; - reads it.")],
    apply: Annotated[bool, typer.Option("--apply", help="Apply them instead of printing them.")] = False,
    with_secrets: Annotated[
        bool, typer.Option("--with-secrets", help="Also Secrets, with the values that the file holds.")
    ] = False,
    namespace: options.Namespace = "",
) -> int:
    """Make Tools of the servers in an mcpServers file.

    npx and uvx become packages in one version, which your own npm and pip are asked for when the file names none. What
    looks like a secret becomes a reference to a Secret. Ends with 1 when a server could not be made a Tool.

    Examples:

    \b
      agentk import .mcp.json
      agentk import .mcp.json --apply --with-secrets -n team-a
    """
    text = sys.stdin.read() if file == "-" else _text(file)
    found = mcpjson.read(text, newest, _path)
    objects = [*(found.secrets if with_secrets else []), *found.tools]
    ships = {obj["metadata"]["name"] for obj in tool_discovering.shipping()}
    for note in [*found.notes, *(_OURS.format(one) for one in _names(found.tools) if one in ships)]:
        show.say(note)
    for why in found.left_out:
        telling.error(errors.Invalid(why))
    failed = bool(found.left_out)
    if apply and objects:
        failed = _apply(objects, namespace) or failed
    elif objects:
        show.write("---\n".join(show.yaml_text(one) for one in objects))
    return 1 if failed else 0


def _names(objects: list[dict[str, Any]]) -> list[str]:
    return [str(one["metadata"]["name"]) for one in objects]


def newest(index: str, name: str) -> str:
    """The newest version, as the user's own npm or pip knows it; "" when it does not."""
    if index == "npm":
        program = shutil.which("npm")
        command = [program or "npm", "view", "--json", "--", name, "version"]
    else:
        program = sys.executable
        command = [program, "-m", "pip", "index", "versions", "--disable-pip-version-check", "--", name]
    if not program:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    if done.returncode:
        return ""
    return _npms(done.stdout) if index == "npm" else _pips(done.stdout)


def _npms(said: str) -> str:
    try:
        told = json.loads(said)
    except ValueError:
        return ""
    return str(told[-1] if isinstance(told, list) and told else told or "")


def _pips(said: str) -> str:
    """`name (1.2.3)`, and more lines."""
    return said.partition("(")[2].partition(")")[0].strip()


def _apply(objects: list[dict[str, Any]], namespace: str) -> bool:
    """Whether one failed."""
    where = options.namespace(namespace)
    wanted = [manifests.resolve(manifest.Manifest(one, "imported"), namespace, where) for one in objects]
    sender = sending.Sender(connect.connect, False, False)
    failed = False
    for one, result in zip(wanted, sender.send(wanted), strict=True):
        if isinstance(result, errors.AgentkError):
            failed = True
            telling.error(result)
        else:
            print(f"{one} {result.change}")
    return failed


def _text(path: str) -> str:
    with open(os.path.expanduser(path), encoding="utf-8") as file:
        return file.read()


def _path(argument: str) -> str:
    path = os.path.abspath(os.path.expanduser(argument))
    return path if os.path.isfile(path) else ""
