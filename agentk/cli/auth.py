"""`agentk auth can-i`: what the gate would say to an agent's call, and why, rule by rule. Nothing is called."""

from typing import Annotated, Any

import typer

from agentk.api import kinds
from agentk.cli import columns, connect, options, show, usage

app = typer.Typer(
    **options.APP,
    help="""Ask what an agent may do.

    Example:

    \b
      agentk auth can-i --as agent/triage think model=gpt-5
    """,
)


@app.callback()
def auth() -> None:
    """Makes `can-i` a word of its own while it is the only one."""


@app.command("can-i")
def can_i(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="For example think or exec.")],
    params: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE…]", help="Parameters of the call.", show_default=False),
    ] = None,
    who: Annotated[str, typer.Option("--as", metavar="agent/NAME", help="Who would call.")] = "",
    namespace: options.Namespace = "",
    output: options.Document = "",
) -> int:
    """Tell whether an agent may make a call, by which rule, and why every other rule does not apply.

    Ends with 0 when it may, else with 1. The agent need not run. Parameters that no rule can ask about may be left
    out; features=NAME,… are what the call would use besides.

    Examples:

    \b
      agentk auth can-i --as agent/triage think model=gpt-5
      agentk auth can-i --as agent/triage exec language=shell
      agentk auth can-i --as agent/triage http.request url=https://api.example.com/v1 method=POST
      agentk auth can-i --as agent/triage message.send to=team-b/reviewer
    """
    form = show.parse(output, ("json", "yaml"))
    if not who:
        raise usage.Usage("say who would call", hint=f"agentk auth can-i --as agent/NAME {method}")
    name, where = options.agent_names([who])[0], options.namespace(namespace)
    body = {"method": method, "params": dict(_pair(text) for text in params or [])}
    told = connect.connect().request("POST", kinds.AGENT.path(where, name, "can-i"), body=body)
    if form.name:
        show.write(show.document(told, form))
    else:
        show.write(text(told))
    return 0 if told["allowed"] else 1


def text(told: dict[str, Any]) -> str:
    """The decision, then each rule."""
    word = {"Allow": "yes", "Ask": "ask", "Deny": "no"}[told["effect"]]
    lines = [f"{word}: {columns.safe(told['reason'])}"]
    rows = [
        [one["rule"], one["effect"], "yes" if one["applies"] else "no", one["why"]] for one in told["rules"]
    ]
    return (
        "\n".join(lines) + "\n" + (columns.draw(("Rule", "Effect", "Applies", "Why"), rows) if rows else "")
    )


def _pair(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not key or not equals:
        raise usage.Usage(f"{word!r} is not KEY=VALUE", hint="for example model=gpt-5")
    return key, value
