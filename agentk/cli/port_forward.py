"""`agentk port-forward`: ports of our loopback that lead to ports in the box of an agent."""

import ipaddress
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentk.api import errors, kinds
from agentk.cli import connect, options, usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentk.client import forwarding

app = typer.Typer(**options.APP)
_PORTS = re.compile(r"(?:([0-9]{0,5}):)?([0-9]{1,5})")
_HIGHEST = 65535
_ENDED = ("Succeeded", "Failed")


@app.command("port-forward")
def port_forward(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="Name of an agent.", show_default=False)],
    ports: Annotated[
        list[str],
        typer.Argument(
            metavar="[LOCAL:]PORT…",
            help="LOCAL here, PORT in the box; ':8000' chooses LOCAL.",
            show_default=False,
        ),
    ],
    address: Annotated[
        str, typer.Option("--address", metavar="ADDRESS", help="To listen on; loopback only.")
    ] = "127.0.0.1",
    namespace: options.Namespace = "",
) -> int:
    """Listen here, and lead every connection to a port in the box of an agent that runs, until Ctrl-C.

    The box has no network: what listens on its own loopback is reached, and nothing else of it. Goes on while the
    agent is restarted. For ports that are always there, give the agent spec.ports.

    Examples:

    \b
      agentk port-forward triage 8080
      agentk port-forward triage 8080:8000 9000:9000
      agentk port-forward triage :8000
    """
    name, where = options.agent_names([agent])[0], options.namespace(namespace)
    asked = [_pair(word) for word in ports]
    host = _loopback(address)
    from agentk.client import forwarding  # what speaks WebSocket costs 20 ms, and help needs none of it

    api = connect.connect()
    _check(name, api.get(kinds.AGENT, where, name))  # starts a daemon that is not running
    path = kinds.AGENT.path(where, name, "portforward")
    with forwarding.Forwarder(api.socket, path, _say) as forwarder:
        for local, port in asked:
            _tell(forwarder, host, local, port)
        forwarder.run()
    return 0


def _check(name: str, agent: "Mapping[str, Any]") -> None:
    """One that waits or is between two attempts may yet be reached; one that has ended will not."""
    phase = (agent.get("status") or {}).get("phase", "")
    if phase in _ENDED:
        raise errors.Conflict(
            f'agent "{name}" is not running: {phase}', hint=f"agentk restart {name}  # begins it again"
        )


def _tell(forwarder: "forwarding.Forwarder", host: str, local: int, port: int) -> None:
    chosen = forwarder.listen(host, local, port)
    shown = f"[{host}]" if ":" in host else host
    print(f"Forwarding from {shown}:{chosen} -> {port}", flush=True)


def _say(text: str) -> None:
    from agentk.cli import columns, show

    show.say(columns.safe(text))


def _pair(word: str) -> tuple[int, int]:
    """Ours, 0 to choose one, and the box's. Raises Usage."""
    found = _PORTS.fullmatch(word)
    local, port = (found[1], int(found[2])) if found else ("", 0)
    number = port if local is None else int(local or 0)
    if not 0 < port <= _HIGHEST or not 0 <= number <= _HIGHEST:
        raise usage.Usage(f"{word!r} is no port", hint="for example 8080:8000, 8000 or :8000")
    return number, port


def _loopback(address: str) -> str:
    if address == "localhost":
        return "127.0.0.1"
    try:
        if ipaddress.ip_address(address).is_loopback:
            return address
    except ValueError:
        pass
    raise usage.Usage(
        f"--address {address} would let others in: agents are reached from this machine alone",
        hint="127.0.0.1 or ::1; others come in by ssh -L",
    )
