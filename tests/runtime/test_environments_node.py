"""npm packages made in real jails from a registry of the test's own: nothing of them is run, and Node finds them."""

import base64
import contextlib
import dataclasses
import hashlib
import http.server
import io
import json
import shutil
import tarfile
import threading
from collections.abc import Iterator

import pytest

from agentk.api import environments as asked
from agentk.api import errors
from agentk.control import environment_boxes
from agentk.runtime import box
from agentk.runtime.launcher import environments
from tests.runtime import launching
from tests.runtime.packages import Index
from tests.runtime.test_environments import Maker, builder, in_jails

NODE = shutil.which("node", path="/usr/local/bin:/usr/bin:/bin") and shutil.which(
    "npm", path="/usr/local/bin:/usr/bin:/bin"
)
needs_node = pytest.mark.skipif(not NODE, reason="no node and npm below /usr")
pytestmark = launching.needs_jail


class Registry:
    """Packages by name, as npm asks for them."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = outer.answers.get(self.path)
                self.send_response(200 if found is not None else 404)
                self.send_header("Content-Length", str(len(found or b"{}")))
                self.end_headers()
                self.wfile.write(found if found is not None else b"{}")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, name: str, *, integrity: str = "", **package: object) -> str:
        manifest = {"name": name, "version": "1.0.0", "main": "index.js", "bin": {name: "cli.js"}, **package}
        files = {
            "package.json": json.dumps(manifest),
            "index.js": f"module.exports = 'this is {name}'",
            "cli.js": f"#!/usr/bin/env node\nconsole.log('run {name}')",
            "ran.js": "require('fs').writeFileSync('/workspace/ran', ''); console.error('RAN')",
        }
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w:gz") as tar:
            for file, text in files.items():
                member = tarfile.TarInfo(f"package/{file}")
                member.size, member.mode = len(text), 0o755
                tar.addfile(member, io.BytesIO(text.encode()))
        true = "sha512-" + base64.b64encode(hashlib.sha512(data.getvalue()).digest()).decode()
        dist = {"tarball": f"{self.url}{name}/-/{name}-1.0.0.tgz", "integrity": integrity or true}
        packument = {"name": name, "dist-tags": {"latest": "1.0.0"}}
        packument["versions"] = {"1.0.0": {**manifest, "dist": dist}}  # type: ignore[assignment]
        self.answers[f"/{name}"] = json.dumps(packument).encode()
        self.answers[f"/{name}/-/{name}-1.0.0.tgz"] = data.getvalue()
        return true


@contextlib.contextmanager
def registry() -> Iterator[Registry]:
    made = Registry()
    try:
        yield made
    finally:
        made.close()


class NodeMaker:
    def __init__(self, maker: Maker, registry: Registry) -> None:
        self._maker = maker
        self.sources = environment_boxes.Sources({}, f"registry={registry.url}\n", {})

    def order(self, **node: object) -> environment_boxes.Order:
        wanted = asked.request({"node": node}, "node")
        assert wanted is not None
        name = asked.digest(wanted, "node", ["x"])
        return environment_boxes.Order(name, "node", wanted, box.Interpreter("", "", "x"), "")

    async def fetch(self, order: environment_boxes.Order) -> environment_boxes.Lock:
        told = await self._maker.run(order.fetching(builder(self._maker.there), self.sources))
        return environment_boxes.lock_of(order, told)

    async def make(self, **node: object) -> tuple[str, environment_boxes.Lock]:
        order = self.order(**node)
        lock = await self.fetch(order)
        await self._maker.run(order.installing(builder(self._maker.there), lock))
        await self._maker.runtime.keep_environment(order.name)
        return order.name, lock


@needs_node
@in_jails
async def test_node_finds_them_and_no_script_is_run(maker: Maker, index: Index) -> None:
    with registry() as there:
        leaf = there.add("leaf", scripts={"postinstall": "node ran.js", "preinstall": "node ran.js"})
        there.add("tree", dependencies={"leaf": "^1"}, scripts={"install": "node ran.js"})
        name, lock = await NodeMaker(maker, there).make(packages=["tree@1"])
    assert f"leaf@1.0.0 {leaf}" in lock.shown and len(lock.shown) == 2
    script = (
        "node -e \"console.log(require('tree'))\"; printf \"import t from 'leaf'; console.log(t)\" > /tmp/a.mjs;"
        "node /tmp/a.mjs; tree; touch /node_modules/x 2>&1; ls -a /node_modules/.bin"
    )
    mount = box.Mount("environment", environments.NODE, source=name)
    env = {"PATH": "/node_modules/.bin:/usr/local/bin:/usr/bin:/bin", "NODE_PATH": "/node_modules"}
    limits = box.Limits(cpu_millis=1000, memory_bytes=512 << 20, pids=64, open_files=256)
    await maker.runtime.start(maker.there.make("sh", "-c", script, mounts=(mount,), env=env, limits=limits))
    await launching.ended(maker.runtime, "u-1-1")
    log = maker.there.log()
    assert log[:3] == ["this is tree", "this is leaf", "run tree"] and "Read-only" in log[3]
    logs = (maker.there.state / "logs").glob("*/*.log")
    assert not any("RAN" in path.read_text() for path in logs)


@needs_node
@in_jails
async def test_what_is_not_what_its_integrity_says_is_refused(maker: Maker, index: Index) -> None:
    with registry() as there:
        wrong = "sha512-" + base64.b64encode(bytes(64)).decode()
        there.add("tree", integrity=wrong)
        with pytest.raises(errors.RuntimeRefused, match=r"data for tree.*EINTEGRITY"):
            await NodeMaker(maker, there).make(packages=["tree"])


@needs_node
@in_jails
async def test_what_names_a_repository_is_refused(maker: Maker, index: Index) -> None:
    with registry() as there:
        there.add("tree", dependencies={"hidden": f"git+file://{index.folder}/hidden"})
        with pytest.raises(errors.RuntimeRefused):
            await NodeMaker(maker, there).make(packages=["tree"])
        with pytest.raises(errors.RuntimeRefused, match="E404"):
            await NodeMaker(maker, there).make(packages=["nothing-of-this-name"])


@in_jails
async def test_a_host_without_npm_is_told_so(maker: Maker, index: Index) -> None:
    order = NodeMaker(maker, _Nowhere()).order(packages=["tree"])
    fetching = order.fetching(builder(maker.there), environment_boxes.Sources())
    with pytest.raises(errors.RuntimeRefused, match="boxes have no node and npm: install them"):
        await maker.run(dataclasses.replace(fetching, env={"PATH": "/nowhere"}))


class _Nowhere(Registry):
    def __init__(self) -> None:
        self.url = "http://127.0.0.1:1/"
