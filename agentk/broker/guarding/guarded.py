"""One call of an agent whose Policy has guardrails: what leaves by it, what comes back, and what of it goes on record.

Going out: rates are counted, code is looked at, personal data is masked for those who are not to have it. Coming back:
secrets are taken out or the answer is refused, it is cut to its size, and where masked data went out its values are put
back, for the agent's own eyes only. The journal has the masked text of both. Whatever cannot be looked through is
refused.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentk.api import errors
from agentk.broker.calling import passing, proxying
from agentk.broker.guarding import holding, limits, masking, restoring, skills, tools
from agentk.broker.guarding.earlier import Earlier
from agentk.broker.guarding.limits import Rates
from agentk.broker.guarding.lookouts import Lookouts
from agentk.broker.guarding.rails import Code, Rails, Surface
from agentk.broker.guarding.tokens import Vault
from agentk.broker.words import Call, Guest

SURFACES: Mapping[str, Surface] = {
    "think": "model",
    "embed": "model",
    "exec": "exec",
    "exec.poll": "exec",
    "skill.run": "exec",
    "tool.call": "tool",
    "http.request": "http",
    "message.send": "message",
    "message.broadcast": "message",
    "skill.save": "message",  # whoever uses it is told what is in it
}
# Calls whose answers are values that agents kept, of whatever kind.
_UNSEEN = frozenset({"state.cas", "queue.get"})
_OMITTED: Mapping[str, Any] = {"omitted": "by the guardrails"}
_UNCOUNTED = frozenset({"exec.poll"})


@dataclass(frozen=True)
class Leaving:
    """The parameters for who does it, and for the journal; and why it may not be done, if it may not."""

    params: Mapping[str, Any]
    kept: Mapping[str, Any]
    refusal: errors.AgentkError | None = None


@dataclass(frozen=True)
class Coming:
    """An answer, for the guest and for the journal."""

    told: Any
    kept: Any


SkillOf = Callable[[Guest, str], Awaitable[Mapping[str, bytes]]]


CommandOf = Callable[[Guest, str], Mapping[str, Any] | None]


async def no_skill(guest: Guest, name: str) -> Mapping[str, bytes]:
    return {}


def no_command(guest: Guest, called: str) -> None:
    return None


@dataclass(frozen=True)
class Rooms:
    """What all guarded calls share. `redact` is the journal's. `skill`: the files of a Skill that the guest may use;
    `command`: what a tool that it may call makes a command of, if it does."""

    lookouts: Lookouts
    vault: Vault
    rates: Rates
    redact: Callable[[bytes], bytes]
    earlier: Earlier
    skill: SkillOf = no_skill
    command: CommandOf = no_command


class Guarded:
    def __init__(self, call: Call, method: str, rails: Rails, rooms: Rooms) -> None:
        self._call, self._method, self.rails = call, method, rails
        self._lookouts, self._vault, self._rates = rooms.lookouts, rooms.vault, rooms.rates
        self._earlier, self._skill, self._command = rooms.earlier, rooms.skill, rooms.command
        self._surface = SURFACES.get(method)
        self._mask = masking.Masking(call.guest.uid, rails, self._lookouts, self._vault, rooms.redact)
        self._params: Mapping[str, Any] = call.params
        self._stream = self._streaming()

    # going out

    async def leaves(self, params: Mapping[str, Any]) -> Leaving:
        try:
            if self.rails.broken:
                raise errors.Denied(f"the guardrails of its Policy cannot be read: {self.rails.broken}")
            sent = await self._checked(params)
            kept = await self._mask.recorded(params)
        except errors.AgentkError as refusal:
            return Leaving(params, {"omitted": "refused by the guardrails"}, refusal)
        self._params = sent
        return Leaving(sent, kept)

    async def _checked(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        rails, surface = self.rails, self._surface
        runs = self._method == "skill.run" or (self._method == "skill.get" and params.get("importing"))
        if runs and rails.code is not None:
            files = await self._skill(self._call.guest, str(params["name"]))
            await skills.check_code(self._call.guest.uid, rails.code, files, self._lookouts)
        if surface is None:
            return params
        if rails.rate is not None and self._method not in _UNCOUNTED:
            self._rates.take(self._whose(), rails.rate)
        if self._method == "exec" and rails.code is not None and not self._call.form:
            await self._check_code(rails.code, params)
        if self._method == "tool.call" and rails.code is not None:
            command = self._command(self._call.guest, str(params["name"]))
            if command is not None:
                await tools.check_code(
                    self._call.guest.uid, rails.code, command, params["arguments"], self._lookouts
                )
        if self._method == "skill.save":
            return await skills.saved(self._call.guest.uid, rails, params, self._mask, self._lookouts)
        if self._call.form == proxying.TUNNEL and self._looks_into_http():
            raise errors.Denied(
                "guardrails: what a tunnel carries cannot be looked at",
                hint="http.request, or a host that the agent's spec has methods or a secret for",
            )
        if surface == "message":
            params = await self._message(params)
        if surface in ("exec", "http") and rails.output is not None and rails.output.truncate:
            field = "outputBytes" if surface == "exec" else "maxBytes"
            if field in params:
                params = {**params, field: min(params[field], rails.output.most_bytes)}
        if rails.pii is not None and surface in rails.pii.mask:
            params = await self._mask.sent(surface, params)
        if self._call.form == proxying.FORWARD and rails.looks_at("http"):
            params = holding.plain(params)
        return params

    async def _check_code(self, code: Code, params: Mapping[str, Any]) -> None:
        guest = self._call.guest
        if "session" not in params:
            await masking.check_code(guest.uid, code, params, self._lookouts)
            return

        async def look(piece: str, others: Sequence[str]) -> None:
            told = {**params, "code": piece}
            await masking.check_code(guest.uid, code, told, self._lookouts, others)

        await self._earlier.look(self, guest, str(params.get("code") or ""), look)

    async def _message(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """A message is an output of who sends it."""
        body = (await self._mask.searched("message", {"body": params["body"]}))["body"]
        output = self.rails.output
        if output is not None:
            limits.cut({"body": body}, limits.whole(output))
        return {**params, "body": body}

    def _looks_into_http(self) -> bool:
        rails = self.rails
        return rails.looks_at("http") or (rails.pii is not None and "http" in rails.pii.mask)

    def _whose(self) -> Sequence[str]:
        return (self._call.guest.uid, *self._call.guest.parents)

    # coming back

    async def hears(self, item: Any) -> list[Any]:
        """What of a stream may go on now."""
        return [item] if self._stream is None else self._stream.feed(item)

    async def ends(self) -> list[Any]:
        """The rest of it. Raises Denied."""
        return [] if self._stream is None else await self._stream.end()

    def _streaming(self) -> "holding.Streaming | None":
        rails, surface = self.rails, self._surface
        if surface is None:
            return None
        if surface == "model":
            masks = rails.pii is not None and "model" in rails.pii.mask
            return holding.Restored(self._vault.of(self._call.guest.uid), self._call.form) if masks else None
        if surface != "message" and rails.looks_at(surface):
            return holding.Held(self._mask, surface, rails.output)
        return None

    @property
    def holds(self) -> bool:
        """Whether nothing of a stream is told before its end."""
        return isinstance(self._stream, holding.Held)

    async def seen(self, value: Any) -> Any:
        """An answer before anything else is done with it: without secrets. Raises Denied."""
        surface = self._surface
        if surface is None or surface in ("model", "message"):
            return value
        return await self._mask.searched(surface, value, in_base64=self._params.get("encoding") == "base64")

    async def comes(self, result: Any) -> Coming:
        """Raises Denied, TooLarge."""
        surface = self._surface
        if surface is None or self._method == "embed":
            return Coming(result, await self._mask.recorded(result) if surface is None else result)
        result = await self.seen(result)
        if surface != "model" and self.rails.output is not None:
            result = limits.cut(result, self.rails.output)
        if self.rails.rate is not None:
            self._rates.add_bytes(self._whose(), limits.size(result))
        kept = await self._mask.recorded(result)
        return Coming(self._restored(result), kept)

    async def background(self, result: Any) -> Any:
        """What is kept of an answer until somebody asks for it."""
        return (await self.comes(result)).kept

    async def failed(self, error: errors.AgentkError) -> errors.AgentkError:
        """An error may quote what it is about."""
        surface = self._surface
        if surface in ("exec", "tool", "http"):
            told = {"message": error.message, "hint": error.hint}
            told = await self._mask.searched(surface, told, block=False)
            error.message, error.hint = told["message"], told["hint"]
        return error

    async def kept(self, value: Any) -> Any:
        """As the journal may have it."""
        return await self._mask.recorded(value)

    def local(self, result: Any) -> Any:
        """Of an answer that goes on record in the transaction that makes it: nobody can look through it there."""
        return _OMITTED if self.rails.pii is not None and self._method in _UNSEEN else result

    def again(self, answer: Any) -> Any:
        """What is on record, for the guest's own eyes. Raises Expired when that is nothing."""
        if answer == _OMITTED:
            raise errors.Expired("the call ended, and the guardrails keep its answer off the record")
        if self.rails.pii is None:
            return answer
        if self._call.form and isinstance(answer, Mapping) and passing.body_of(answer) is not None:
            return self._body(answer)
        return restoring.whole(answer, self._vault.of(self._call.guest.uid))

    def _restored(self, result: Any) -> Any:
        pii = self.rails.pii
        if pii is None or self._call.form in (proxying.FORWARD, proxying.TUNNEL):
            return result
        if self._surface in pii.mask or self._method == "exec.poll":
            return self.again(result)
        return result

    def _body(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        text = restoring.body(str(answer["body"]), self._vault.of(self._call.guest.uid))
        return {**answer, "body": text, "bytes": len(text.encode("utf-8", "surrogateescape"))}
