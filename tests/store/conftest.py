"""A real store in a directory of its own, and objects to put into it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentk.store.store import Store

Object = dict[str, Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def agent() -> Callable[..., Object]:
    def make(name: str = "a", namespace: str = "default", **metadata: Any) -> Object:
        return {
            "apiVersion": "agentk.dev/v1alpha1",
            "kind": "Agent",
            "metadata": {"name": name, "namespace": namespace, **metadata},
            "spec": {"command": ["true"], "priority": 0},
        }

    return make
