"""The real kubectl, which knows no unix socket: a relay on loopback stands between."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon.conftest import Api

KUBECTL = shutil.which("kubectl")
Kubectl = Callable[..., str]

MANIFEST = """
apiVersion: agentk.dev/v1alpha1
kind: Agent
metadata: {name: web, labels: {app: web}}
spec: {command: [sleep, "1"]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {level: info}
"""

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")


@pytest.fixture
def kubectl(api: Api, tmp_path: Path) -> Iterator[Kubectl]:
    relay = api.run(_relay(api.path))
    port = relay.sockets[0].getsockname()[1]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KUBECONFIG": str(tmp_path / "none")}

    def run(*arguments: str, given: str = "", code: int = 0) -> str:
        command = [KUBECTL or "", f"--server=http://127.0.0.1:{port}", *arguments]
        done = subprocess.run(command, env=env, input=given, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    yield run
    api.run(_closed(relay))


def test_kubectl_applies_both_ways(kubectl: Kubectl) -> None:
    assert "agent.agentk.dev/web created" in kubectl("apply", "-f", "-", given=MANIFEST)
    changed = MANIFEST.replace('"1"', '"2"')
    assert "agent.agentk.dev/web configured" in kubectl("apply", "-f", "-", given=changed)
    assert "configmap/settings unchanged" in kubectl("apply", "-f", "-", given=changed)
    serverside = kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", given=MANIFEST)
    assert "agent.agentk.dev/web serverside-applied" in serverside
    assert kubectl("get", "agent", "web", "-o", "jsonpath={.spec.command[1]}") == "1"


def test_kubectl_draws_what_we_tell(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", given=MANIFEST)
    assert kubectl("get", "ag").split()[:2] == ["NAME", "PHASE"]
    assert "agent.agentk.dev/web" in kubectl("get", "all,cm")
    assert "Restart Policy:" in kubectl("describe", "agent", "web")
    assert "agentk.dev/v1alpha1" in kubectl("api-resources")
    assert "Most the agent may use" in kubectl("explain", "agent.spec.resources")


def test_kubectl_edits_and_waits(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", given=MANIFEST)
    for what in ("agent/web", "configmap/settings"):
        kubectl("label", what, "tier=one")
    kubectl("patch", "configmap", "settings", "-p", '{"data":{"more":"1"}}')
    kubectl("patch", "agent", "web", "--type=merge", "-p", '{"spec":{"priority":3}}')
    kubectl("wait", "--for=jsonpath={.spec.priority}=3", "agent", "-l", "tier=one", "--timeout=30s")
    assert "deleted" in kubectl("delete", "agent/web", "configmap/settings")


def test_kubectl_shows_our_errors(kubectl: Kubectl) -> None:
    wrong = MANIFEST.replace("command", "comand")
    said = kubectl("apply", "-f", "-", given=wrong, code=1)
    assert "spec.comand: unknown field; did you mean 'command'?" in said
    assert "not found" in kubectl("get", "agent", "nobody", code=1)


async def _relay(path: Path) -> asyncio.Server:
    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(path)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    return await asyncio.start_server(connected, "127.0.0.1", 0)


async def _closed(server: asyncio.Server) -> None:
    server.close()
    await server.wait_closed()
