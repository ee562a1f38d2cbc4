"""What the control API asks of the rest of the daemon, as plain functions; `house` hands them over."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.routing import BaseRoute

from agentk.runtime import box

if TYPE_CHECKING:
    from agentk.daemon.desk import Desk
    from agentk.daemon.memoryhouse import Memoryhouse
    from agentk.daemon.toolhouse import Toolhouse
    from agentk.daemon.visiting import Room


@dataclass(frozen=True)
class Services:
    """Everything behind the API that is not in the store."""

    # Where an agent's logs are (namespace, uid): `N.log` of attempt N is written, `N.log.1` was before it, and so
    # on. It need not exist yet. Pure: called on the loop.
    log_folder: Callable[[str, str], Path]
    # What the kernel counted for a box (`status.boxID`). Raises NotFound when the runtime forgot it.
    counters: Callable[[str], Awaitable[box.Counters]]
    findings: Callable[[], Awaitable[Sequence[box.Finding]]]  # agentk doctor
    status: Callable[[], Awaitable[Mapping[str, Any]]]  # agentk daemon status
    # Begin to end the daemon and return; True: the agents end with it.
    shutdown: Callable[[bool], Awaitable[None]]
    # From where packages are fetched, as the owner's own pip and npm configuration has it. Raises BadRequest.
    indexes: Callable[[Mapping[str, Any]], None]
    allowed_uids: frozenset[int]  # who may talk to the control socket
    version: str
    desk: "Desk | None" = None  # what people may look into of the gate; None: this daemon has none
    visits: "Room | None" = None  # people's hands in boxes; None: this daemon has none
    tools: "Toolhouse | None" = None  # the tools of agents, for people to call; None: this daemon has none
    memory: "Memoryhouse | None" = None  # what agents remember; None: this daemon has none
    kept: Callable[[str], dict[str, Any]] | None = None  # the Agent of a Checkpoint, by its uid
    routes: Sequence[BaseRoute] = ()  # below /agentk/v1, of rooms that serve connections of their own kind
    # Set: the server stops accepting, and streams (watches, followed logs) end.
    ending: asyncio.Event = field(default_factory=asyncio.Event)
