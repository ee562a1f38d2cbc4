"""Who a Tool's own requests are sent as: somebody who may reach the one host that its manifest names, with its Secrets.

Egress looks at it as at any agent. Whoever calls the Tool lends it nothing, and gets nothing of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from agentk.broker import egress_urls
from agentk.broker.tooling import kinds as words
from agentk.broker.tooling.kinds import Object
from agentk.broker.words import Guest

Http = Mapping[str, Any]  # of a spec: what has `headers` and `privateAddresses`


def own(tool: Object, http: Http, url: egress_urls.Url, methods: Sequence[str] = ()) -> Guest:
    """No `methods`: any."""
    way = {
        "host": url.host,
        "ports": [url.port],
        "methods": list(methods),
        "privateAddresses": bool(http.get("privateAddresses")),
    }
    injected = [
        {
            **one["valueFrom"]["secretKeyRef"],
            "inject": {"host": url.host, "header": one["name"], "prefix": one.get("prefix", "")},
        }
        for one in http.get("headers") or ()
        if "valueFrom" in one
    ]
    return _guest(tool, {"network": {"egress": {"default": "Deny", "allow": [way]}}, "secrets": injected})


def anybody(tool: Object) -> Guest:
    """A person, who calls without an agent: public addresses."""
    return _guest(tool, {"network": {"egress": {"default": "Allow"}}})


def secrets(http: Http) -> list[Mapping[str, str]]:
    """Name and key of each Secret that goes into its requests."""
    return [one["valueFrom"]["secretKeyRef"] for one in http.get("headers") or () if "valueFrom" in one]


def _guest(tool: Object, spec: dict[str, Any]) -> Guest:
    uid = f"tool-{words.uid(tool)}"
    return Guest(uid, words.namespace(tool), words.name(tool), 1, uid, "", spec)
