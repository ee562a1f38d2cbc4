"""What models are shown of an agent's conversations, for people: `agentk memory map` and `explain`."""

from starlette.responses import Response

from agentk.api import errors
from agentk.daemon import answers, calls, desk


async def windows(call: calls.Call) -> Response:
    """Its windows, the one used last first; with `page`, why that page is or is not in one."""
    windows, agent = desk.of(call).windows, await desk.agent(call)
    if windows is None:
        raise errors.Unavailable("this daemon manages no contexts")
    page = call.query.get("page", "")
    told = await (windows.explained(agent, page) if page else windows.listed(agent))
    return Response(answers.encoded(told), media_type="application/json")
