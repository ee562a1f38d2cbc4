"""Tools that are requests: to the host of their manifest, with Secrets that no agent sees."""

import json

from tests.flows import household, loopback
from tests.flows.household import Space
from tests.flows.test_tools import call, granted, tool

pytestmark = household.needs
SECRET = "a-long-secret-value-of-the-tool"


class Repeats(loopback.Answering):
    """What it is sent, the Authorization header too."""

    def do_GET(self) -> None:
        body, auth = self.asked(), self.headers.get("Authorization")
        self.server.seen.append((self.path, auth))
        if self.path.startswith("/cut"):
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            return
        told = {"path": self.path, "auth": auth, "body": body.decode()}
        told["key"] = self.headers.get("Idempotency-Key")
        self.answer(json.dumps(told).encode(), 404 if self.path.startswith("/gone") else 200)

    do_POST = do_GET


def test_a_request_goes_where_the_manifest_says_with_a_secret_nobody_sees(space: Space) -> None:
    with loopback.serving(loopback.Server(Repeats)) as server:
        base, heard = server.url, server.seen
        key = {"name": "s", "key": "k"}
        auth = {"name": "Authorization", "prefix": "Bearer ", "valueFrom": {"secretKeyRef": key}}
        text = {"type": "object", "properties": {"q": {"type": "string"}, "url": {"type": "string"}}}
        common = {"privateAddresses": True, "parameters": text}
        document = {
            "openapi": "3.0.0",
            "servers": [{"url": "https://evil.example"}],
            "paths": {
                "/pets/{id}": {"get": {"operationId": "pet", "parameters": [{"name": "id", "in": "path"}]}}
            },
        }
        operation = {"source": {"inline": json.dumps(document)}, "operation": "pet", "server": base}
        space.apply(
            household.manifest("Secret", "s", stringData={"k": SECRET}),
            tool("get", http={"url": base + "/find/{q}", "headers": [auth], **common}),
            tool(
                "post", idempotent="key", http={"url": base + "/x", "method": "POST", "body": "{*}", **common}
            ),
            tool("gone", http={"url": base + "/gone", **common}),
            tool("cut", http={"url": base + "/cut", "method": "POST", **common}),
            tool("private", http={"url": base + "/x"}),
            tool("fetch", http={"url": "{url}", **common}),
            tool("pet", http={"openapi": operation, "privateAddresses": True, "headers": [auth]}),
        )
        names = ("get", "post", "gone", "cut", "private", "fetch", "pet")
        told = call(
            space,
            granted(*names),
            ("get", {"q": "a/b"}),
            ("post", {"q": "x"}),
            ("gone", {}),
            ("cut", {}),
            ("private", {}),
            ("fetch", {"url": base + "/y"}),
            ("pet", {"id": 3}),
        )
    assert told[0][2]["path"] == "/find/a%2Fb" and SECRET not in json.dumps(told)
    assert ("/find/a%2Fb", f"Bearer {SECRET}") in heard and ("/pets/3", f"Bearer {SECRET}") in heard
    assert json.loads(told[1][2]["body"]) == {"q": "x"} and told[1][2]["key"]
    assert told[2][0] is True and "HTTP 404" in told[2][1]
    assert told[3][0] == "OutcomeUnknown"
    assert told[4][0] == "PolicyDenied" and "private" in told[4][1].lower()
    assert told[5][0] == "PolicyDenied" and "spec.network" in told[5][1]  # of the caller, who reaches nobody
    assert told[6][2]["path"] == "/pets/3"
    assert SECRET not in space.agentk("audit", "-o", "json", code=None).out
