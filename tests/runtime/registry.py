"""A registry on this machine's loopback: manifests and blobs of images that a test made, behind a password or not."""

import base64
import contextlib
import gzip
import hashlib
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Registry:
    host: str = ""  # 127.0.0.1:PORT
    login: str = ""  # "user:password" that it asks for
    asked: list[str] = field(default_factory=list)  # "METHOD /path"
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)  # "name:tag" and "name@digest"
    go_on: threading.Event = field(default_factory=threading.Event)  # blobs wait for it

    def push(self, name: str, tag: str, files: Mapping[str, bytes], **config: Any) -> str:
        """An image of one layer; answers its digest. `config`: Env, WorkingDir, …"""
        layer, tree = _layer(files)
        about = {"architecture": "amd64", "os": "linux", "config": config}
        about["rootfs"] = {"type": "layers", "diff_ids": [digest(tree)]}
        parts = {_CONFIG: json.dumps(about).encode(), _LAYER: layer}
        self.blobs |= {digest(data): data for data in parts.values()}
        descriptors = [
            {"mediaType": kind, "digest": digest(data), "size": len(data)} for kind, data in parts.items()
        ]
        manifest = json.dumps(
            {"schemaVersion": 2, "mediaType": _MANIFEST, "config": descriptors[0], "layers": descriptors[1:]}
        ).encode()
        self.manifests[f"{name}:{tag}"] = self.manifests[f"{name}@{digest(manifest)}"] = manifest
        return digest(manifest)

    def pulls(self) -> int:
        """How often a manifest was fetched or looked at by its tag."""
        return sum("/manifests/" in line and "sha256:" not in line for line in self.asked)


def _layer(files: Mapping[str, bytes]) -> tuple[bytes, bytes]:
    """Compressed, and the tar itself. A file whose name ends with '*' can be executed."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name.rstrip("*"))
            member.size, member.mode = len(content), 0o755 if name.endswith("*") else 0o644
            if content.startswith(b"-> "):
                member.type, member.linkname, member.size = tarfile.SYMTYPE, content[3:].decode(), 0
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(raw.getvalue(), 1, mtime=0), raw.getvalue()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: Registry

    def do_GET(self) -> None:
        registry = self.registry
        registry.asked.append(f"{self.command} {self.path}")
        wanted = "Basic " + base64.b64encode(registry.login.encode()).decode()
        if registry.login and self.headers.get("Authorization") != wanted:
            self._say(401, b"", {"WWW-Authenticate": 'Basic realm="test"'})
            return
        name, _, rest = self.path.removeprefix("/v2/").partition("/manifests/")
        if self.path == "/v2/":
            self._say(200, b"{}", {})
        elif rest:
            held = registry.manifests.get(f"{name}{'@' if ':' in rest else ':'}{rest}")
            kind = {"Content-Type": _MANIFEST, "Docker-Content-Digest": digest(held or b"")}
            self._say(200, held, kind) if held else self._missing("MANIFEST_UNKNOWN", "manifest unknown")
        else:
            registry.go_on.wait(30)
            blob = registry.blobs.get(self.path.rpartition("/")[2])
            self._say(200, blob, {}) if blob else self._missing("BLOB_UNKNOWN", "blob unknown")

    do_HEAD = do_GET

    def _missing(self, code: str, message: str) -> None:
        self._say(404, json.dumps({"errors": [{"code": code, "message": message}]}).encode(), {})

    def _say(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def registry() -> Iterator[Registry]:
    served = Registry()
    served.go_on.set()
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Handler", (_Handler,), {"registry": served})
    )
    served.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield served
    finally:
        served.go_on.set()
        server.shutdown()
        thread.join()
        server.server_close()
