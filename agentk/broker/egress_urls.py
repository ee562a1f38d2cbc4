"""One reading of a URL: who judges it, who connects and what is sent all use the parts found here. Pure.

It must never leave a URL that another parser could read as another host: no user names, no blanks, no control
characters, the host in its one spelling. The path keeps its dots and its escapes as they were written; rules look at
every reading of it (`policy_paths`).
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, urljoin

from agentk.api.errors import BadRequest, UpstreamError
from agentk.broker import egress
from agentk.broker.dialects.http_reading import Request

PORTS = {"http": 80, "https": 443}
_MOST = 8192
_URL = re.compile(r"(?is)(https?)://([^/?#]*)(/[^?#]*)?(?:\?([^#]*))?(?:#.*)?")
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f]")
# All that may stand in a URL, and what clients send though it may not; anything else is escaped, never dropped.
_PATH_SAFE = "%/:@!$&'()*+,;=~-._[]|^"
_QUERY_SAFE = _PATH_SAFE + '?"<>`{}'


@dataclass(frozen=True)
class Url:
    scheme: str
    host: str  # canonical
    port: int
    path: str = "/"
    query: str = ""

    @property
    def authority(self) -> str:
        """As a Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}{'?' * bool(self.query)}{self.query}"


def parse(text: str) -> Url:
    """Raises BadRequest for what is not one address to everybody."""
    found = _URL.fullmatch(text)
    if found is None or len(text) > _MOST:
        raise BadRequest("the URL is not http://host/… or https://host/…", field="params.url")
    if _FORBIDDEN.search(text):
        raise BadRequest("the URL has blanks or control characters", field="params.url")
    scheme, authority, path, query = found[1].lower(), found[2], found[3] or "/", found[4] or ""
    if "@" in authority:
        raise BadRequest(
            "the URL has a user name", field="params.url", hint="send an Authorization header instead"
        )
    return _made(scheme, *egress.authority(authority, PORTS[scheme]), path, query)


def base(text: str) -> str:
    """Scheme, host and port of what begins as a URL."""
    scheme, _, rest = text.partition("://")
    return f"{scheme}://{rest.partition('/')[0].partition('?')[0]}/"


def of(request: Request, scheme: str, authority: str) -> Url:
    """Where a request that came by HTTP goes. Raises BadRequest."""
    if not request.path.startswith("/"):
        raise BadRequest("the request's target has no path", field="url")
    return _made(scheme, *egress.authority(authority, PORTS[scheme]), request.path, request.query)


def joined(base: Url, location: str) -> Url:
    """Where a redirect leads. Raises UpstreamError."""
    try:
        return parse(urljoin(str(base), location.strip(" \t")))
    except (BadRequest, ValueError):
        raise UpstreamError(f"{base.host} redirects to something that is no http or https address") from None


def _made(scheme: str, host: str, port: int, path: str, query: str) -> Url:
    return Url(scheme, host, port, _escaped(path, _PATH_SAFE), _escaped(query, _QUERY_SAFE))


def _escaped(text: str, safe: str) -> str:
    return quote(text, safe=safe, encoding="utf-8", errors="surrogatepass")
