"""Tools that a spec is granted: a child calls none, and none otherwise, than its parent may. Pure."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from agentk.api import errors
from agentk.api.problems import Path, field_path
from agentk.broker import narrowing_shapes as shapes
from agentk.broker.narrowing_shapes import Found, Spec
from agentk.broker.policy_globs import covers


def tools(child: Spec, parent: Spec) -> Found:
    has = {one.name: one for one in _grants(parent)}
    for at, asked in enumerate(_grants(child)):
        had = has.get(asked.name)
        if had is None:
            names = ", ".join(f'"{name}"' for name in has) or "none"
            yield shapes.problem(("tools", at), f'its parent has {names}, asked for "{asked.name}"')
        elif why := asked.wider(had):
            yield shapes.problem(("tools", at), f'"{asked.name}" is wider than its parent has it: {why}')


class _Grant(NamedTuple):
    name: str
    allow: list[str] | None
    deny: list[str]
    approve: list[str]
    arguments: list[Any]
    most: int | None

    def wider(self, had: "_Grant") -> str:
        """In what; "" when it is not."""
        may = had.allow
        if may is not None and (
            self.allow is None or not all(any(covers(wide, one) for wide in may) for one in self.allow)
        ):
            return f"allow is {', '.join(may) or 'nothing'}"
        for field, mine, theirs in (
            ("deny", self.deny, had.deny),
            ("requireApproval", self.approve, had.approve),
        ):
            if missing := [one for one in theirs if not any(covers(wide, one) for wide in mine)]:
                return f"{field} has {', '.join(missing)}"
        if any(rule not in self.arguments for rule in had.arguments):
            return "each of its rules for arguments is needed"
        if had.most is not None and (self.most is None or self.most > had.most):
            return f"maxCalls is {had.most}"
        return ""


_GRANT = {"ref", "allow", "deny", "arguments", "requireApproval", "maxCalls", "resultBytes"}


def _grants(spec: Spec) -> Iterator[_Grant]:
    for at, one in enumerate(shapes.items(spec.get("tools"), ("tools",))):
        path: Path = ("tools", at)
        tool = shapes.only(shapes.mapping(one, path), _GRANT, path)
        ref = shapes.only(shapes.mapping(tool.get("ref"), (*path, "ref")), {"name"}, path)
        most = tool.get("maxCalls")
        if most is not None and type(most) is not int:
            raise errors.Invalid("expected a whole number", field=field_path((*path, "maxCalls")))
        allow = None if tool.get("allow") is None else shapes.texts(tool, "allow", path)
        yield _Grant(
            shapes.text(ref, "name", (*path, "ref")),
            allow,
            shapes.texts(tool, "deny", path),
            shapes.texts(tool, "requireApproval", path),
            [
                {"name": "*", **shapes.mapping(rule, path)}
                for rule in shapes.items(tool.get("arguments"), path)
            ],
            most,
        )
