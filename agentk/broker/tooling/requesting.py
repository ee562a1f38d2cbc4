"""Tools of kind `http`: one request, with rights of the tool's own.

It goes to the host that the manifest names and nowhere else, with the Secrets that it names, whatever the caller may
reach; the same egress as an agent's vets addresses, puts the Secrets in and scrubs what comes back. While one of them
is missing the tool offers nothing, and says which. Where the caller names the whole address, its own rights hold and
no Secret goes along.
"""

import asyncio
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agentk.api import errors, kinds, templates, toolspecs
from agentk.broker import egress, egress_urls, policy, policy_rules
from agentk.broker.calling import fetching
from agentk.broker.egress_fetching import Fetcher, Outgoing
from agentk.broker.egress_secrets import SecretOf
from agentk.broker.tooling import kinds as words
from agentk.broker.tooling import senders
from agentk.broker.tooling.kinds import Calling, Object
from agentk.broker.words import Guest
from agentk.store import store as stores
from agentk.tools import offers, openapis, requests
from agentk.tools.offers import Offered, Outcome

_BODY_BYTES = 4 * 1024 * 1024
_SAFE = frozenset({"GET", "HEAD"})  # nothing happens by them, so nothing is unknown after them

RulesOf = Callable[[Guest], policy_rules.Rules]


class Requests:
    def __init__(self, fetcher: Fetcher, rules: RulesOf, store: stores.Store, secret: SecretOf) -> None:
        self._fetcher, self._rules, self._store, self._secret = fetcher, rules, store, secret
        # By uid of the Tool: who its requests are sent as, and what that was made of.
        self._guests: dict[str, tuple[Object, str, Guest]] = {}
        # In the same way the operation, with the digest of its document: reading that may take seconds.
        self._operations: dict[str, tuple[tuple[str, ...], openapis.Operation]] = {}

    def names(self, tool: Object) -> Sequence[str]:
        return (words.name(tool),)

    async def fingerprint(self, tool: Object) -> str:
        missing = await self._missing(tool)
        waits = missing.message if missing else ""
        if "openapi" not in words.spec(tool)["http"]:
            return waits
        return _digest(await self._document(tool))[:16] + waits

    async def discover(self, tool: Object, guest: Guest | None) -> Sequence[Offered]:
        spec = words.spec(tool)
        missing = await self._missing(tool)
        if missing is not None:
            raise missing
        if "openapi" in spec["http"]:
            found = await self._operation(tool)
            told, schema = spec.get("description") or found.description, found.parameters
        else:
            told, schema = spec.get("description", ""), toolspecs.of_manifest(spec["http"].get("parameters"))
        return (offers.offered(words.name(tool), told, schema),)

    async def call(self, tool: Object, calling: Calling) -> Outcome:
        http = words.spec(tool)["http"]
        form = await self._form(tool, http)
        asked = requests.asked(form, calling.arguments)
        headers = list(asked.headers)
        if words.is_keyed(tool):
            headers.append(("Idempotency-Key", calling.key))
        outgoing = Outgoing(form.method, egress_urls.parse(asked.url), headers, asked.body, plain=True)
        guest = self._sender(tool, form, calling.guest, outgoing)
        try:
            async with asyncio.timeout(calling.seconds):
                came = await self._sent(guest, outgoing)
        except TimeoutError:
            raise _unknown(form, f"{outgoing.url.host} did not answer within {calling.seconds:g} s") from None
        except egress.Unreached:
            raise
        except (errors.UpstreamError, errors.Timeout) as error:
            raise _unknown(form, error.message) from None
        made: Outcome = await words.apart(
            len(came.body), functools.partial(requests.outcome, came, str(outgoing.url))
        )
        return made

    async def _missing(self, tool: Object) -> words.NotYet | None:
        """Which of its Secrets is not there, and how it is made."""
        for ref in senders.secrets(words.spec(tool)["http"]):
            try:
                await self._secret(words.namespace(tool), ref["name"], ref["key"])
            except errors.NotFound as error:
                metadata = {"name": ref["name"], "namespace": words.namespace(tool)}
                made = {"kind": "Secret", "metadata": metadata, "stringData": {ref["key"]: "…"}}
                text = json.dumps({"apiVersion": "v1", **made}, ensure_ascii=False)
                return words.NotYet(error.message, hint=f"echo '{text}' | agentk apply -f -")
        return None

    def forget(self, uid: str) -> None:
        """The Tool is gone."""
        self._guests.pop(uid, None)
        self._operations.pop(uid, None)

    async def _sent(self, guest: Guest, outgoing: Outgoing) -> requests.Came:
        async with self._fetcher.send(guest, outgoing) as answer:
            kept, truncated = bytearray(), False
            async for piece in answer.chunks():
                kept += piece
                if len(kept) > _BODY_BYTES:
                    truncated = True
                    break
            headers = fetching.told_headers(answer.headers)
            return requests.Came(answer.status, headers, bytes(kept[:_BODY_BYTES]), truncated)

    async def _form(self, tool: Object, http: Mapping[str, Any]) -> requests.Form:
        if "openapi" not in http:
            return requests.form(http)
        form = (await self._operation(tool)).form
        return replace(form, headers=[*form.headers, *requests.own_headers(http)])

    def _sender(self, tool: Object, form: requests.Form, caller: Guest | None, outgoing: Outgoing) -> Guest:
        """Whose rights hold. Raises Denied when the caller names the address, and may not."""
        if not templates.whole(templates.parse(form.url)):
            return self._own(tool, form)
        if caller is None:
            return senders.anybody(tool)
        about = fetching.facts(self._fetcher, caller, outgoing.method, outgoing.url)
        verdict = policy.decide(self._rules(caller), fetching.NAME, about)
        if verdict.effect == "Ask":
            raise errors.ApprovalRequired(verdict.reason, hint="ask for it by http.request")
        if verdict.effect != "Allow":
            raise errors.Denied(verdict.reason)
        return Guest(
            caller.uid, caller.namespace, caller.name, caller.attempt, caller.run_id, caller.box_id,
            {**caller.spec, "secrets": []},
        )  # fmt: skip

    def _own(self, tool: Object, form: requests.Form) -> Guest:
        kept = self._guests.get(words.uid(tool))
        if kept is None or kept[0] is not tool or kept[1] != form.url:
            url = egress_urls.parse(egress_urls.base(form.url))
            made = senders.own(tool, words.spec(tool)["http"], url, [form.method])
            kept = self._guests[words.uid(tool)] = (tool, form.url, made)
        return kept[2]

    async def _operation(self, tool: Object) -> openapis.Operation:
        asked = words.spec(tool)["http"]["openapi"]
        text = await self._document(tool)
        made_of = (_digest(text), asked["operation"], asked.get("server", ""))
        kept = self._operations.get(words.uid(tool))
        if kept is not None and kept[0] == made_of:
            return kept[1]

        def read() -> openapis.Operation:
            document = openapis.read(text, f'the document of Tool "{words.name(tool)}"')
            return openapis.operation(document, asked["operation"], asked.get("server", ""))

        made: openapis.Operation = await words.apart(len(text), read)
        self._operations[words.uid(tool)] = made_of, made
        return made

    async def _document(self, tool: Object) -> str:
        source = words.spec(tool)["http"]["openapi"]["source"]
        if "inline" in source:
            return str(source["inline"])
        ref = source["configMapKeyRef"]
        found = await self._store.find(kinds.CONFIGMAP, words.namespace(tool), ref["name"])
        text = ((found or {}).get("data") or {}).get(ref["key"])
        if text is None:
            raise errors.NotFound(
                f'ConfigMap "{ref["name"]}" with key "{ref["key"]}" does not exist',
                hint=f"agentk get configmaps -n {words.namespace(tool)}",
            )
        return str(text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def _unknown(form: requests.Form, why: str) -> errors.AgentkError:
    if form.method in _SAFE:
        return errors.UpstreamError(why)
    return errors.OutcomeUnknown(
        f"{why}: whether it did what was asked is not known",
        hint="look whether it did; then make the call again",
    )
