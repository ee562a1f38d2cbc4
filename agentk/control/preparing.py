"""What has to be there before a box can be made, and may take minutes: its image and its packages."""

from collections.abc import Callable, Mapping
from typing import Any

from agentk.control import environments, images, logins, plans, prepared


class Preparing:
    def __init__(self, packages: environments.Environments, roots: images.Images | None = None) -> None:
        self._packages, self._roots = packages, roots

    def listen(self, wake: Callable[[str], None]) -> None:
        """`wake` hears the uid of an agent for which something changed."""
        self._packages.wake = wake
        if self._roots is not None:
            self._roots.wake = wake

    async def prepare(
        self,
        agent: Mapping[str, Any],
        runtime: Mapping[str, Any],
        entries: list[logins.Entry],
        life: tuple[int, int] | None,
    ) -> tuple[prepared.Prepared, plans.Problem | None, plans.Problem | None]:
        """What is there, and why it has to wait for its packages and for its image. Begins what has to be done.

        `life`: the attempt this is for, and how often that was refused: an image is chosen for each anew. None: it
        does not start now.
        """
        given, packages = prepared.NOTHING, None
        if agent["spec"].get("environment"):
            given, packages = await self._packages.prepare(agent, runtime)
        if self._roots is None or life is None:
            return given, packages, None
        chosen, image = await self._roots.prepare(agent, runtime, entries, life)
        return given.on(chosen), packages, image
