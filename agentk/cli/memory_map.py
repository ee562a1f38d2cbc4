"""`agentk memory map` and `explain`: what an agent's model is shown, drawn; and why a page is, or is not, among it.

A page is a block as wide as it has tokens. In pipes, and wherever colours are not wanted, letters tell the kinds and
signs what is in the window; nothing is told by colour alone.
"""

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentk.api import errors, kinds
from agentk.cli import columns, connect, show

_LETTERS = {
    "system": "S",
    "user": "U",
    "assistant": "A",
    "tool": "T",
    "note": "N",
    "episode": "E",
    "skill": "K",
}
_COLOURS = {"system": 95, "user": 94, "assistant": 92, "tool": 93, "note": 96, "episode": 96, "skill": 91}
_LINES = 24  # that pages may take
_WIDEST = 24  # of one block
_SWAPPED, _RESIDENT, _BACK = "·", "█", "▓"
_PLAIN = {_SWAPPED: ".", _RESIDENT: "=", _BACK: "+"}

Told = Mapping[str, Any]


def map_(agent: str, namespace: str, output: str) -> int:
    told = _windows(agent, namespace)
    form = show.parse(output, ("json", "yaml"))
    if form.name:
        show.write(show.document(told, form))
        return 0
    if not told["items"]:
        show.say(_none(connect.connect().get(kinds.AGENT, namespace, agent)))
        return 0
    colour = columns.wants_colour(sys.stdout)
    width = max(40, shutil.get_terminal_size((100, 24)).columns - 8)
    newest, *others = told["items"]
    show.write("\n".join([*drawn(agent, newest, width, colour), *_others(others)]) + "\n")
    return 0


def explain(page: str, agent: str, namespace: str, output: str) -> int:
    form = show.parse(output, ("json", "yaml"))
    name, _, number = page.rpartition("/")
    told = _explained(name or agent, number, namespace)
    if form.name:
        show.write(show.document(told, form))
        return 0
    show.write("\n".join(explained(told)) + "\n")
    return 0


def drawn(agent: str, window: Told, width: int, colour: bool) -> Iterator[str]:
    """One window as lines."""
    tokens, budget = window["tokens"], window["budgetTokens"]
    share = f" ({tokens['total'] / budget:.0%})" if budget else ""
    pages = window["pages"]
    yield (
        f"agent/{agent}  {tokens['total']:,} of {budget:,} tokens{share}  "
        f"{window['resident']:,} pages in the window, {window['swapped']:,} swapped"
    )
    yield (
        f"prefix {window['prefix']:.0%} of {window['prompts']:,} prompts  cached {_cached(window)}  "
        f"faults {window['faults']:,}  evictions {window['evictions']:,}  folds {window['folds']:,}"
    )
    yield "  ".join(f"{name} {tokens[name]:,}" for name in ("fixed", "notes", "messages", "recalled"))
    yield ""
    scale = _scale(pages, width)
    yield from _rows(pages, width, scale, colour)
    if window["leftOut"]:
        yield f"        {window['leftOut']:,} older pages are not drawn"
    yield ""
    yield _legend(pages, scale, colour)


def explained(told: Told) -> Iterator[str]:
    page = told["page"]
    yield columns.safe(
        f"page {page['id']}  message {page['seq']}  {page['kind']}  {page['tokens']:,} tokens  "
        f"{'in the window' if page['resident'] else 'swapped'}"
    )
    yield columns.safe(told["why"])
    yield (
        f"accesses {page['accesses']}  faults {page['faults']}  evictions {page['evictions']}  unit {page['unit']}"
    )
    score = told.get("score")
    if score:
        yield ""
        rows = [
            [name, f"{score[name]['weight']:g}", f"{score[name]['points']:.3f}"]
            for name in ("recency", "importance", "frequency", "similarity")
        ]
        yield columns.draw(
            ("Part", "Weight", "Points"), [*rows, ["total", "", f"{score['total']:.3f}"]]
        ).rstrip()
        if told.get("whenItLeft") is not None:
            yield f"{told['whenItLeft']:.3f} when it last left"
        if "leavesAfter" in told:
            yield f"{told['leavesAfter']} others would leave before it"
    if told.get("text"):
        yield ""
        yield columns.safe(str(told["text"]))


def _scale(pages: Sequence[Told], width: int) -> int:
    """Tokens of one column, so that all pages fit into the lines there are."""
    whole = sum(int(page["tokens"]) for page in pages)
    scale = max(1, -(-whole // (width * _LINES)))
    while sum(_width(page, scale) for page in pages) > width * _LINES and scale < whole:
        scale = scale * 5 // 4 + 1
    return scale


def _width(page: Told, scale: int) -> int:
    return max(1, min(_WIDEST, round(int(page["tokens"]) / scale)))


def _rows(pages: Sequence[Told], width: int, scale: int, colour: bool) -> Iterator[str]:
    """Blocks in the order of what they are of; each line begins with the place of its first page."""
    line, used, first = "", 0, None
    for page in pages:
        block = _width(page, scale)
        if used and used + block > width:
            yield f"{first or '':>6}  {line}"
            line, used, first = "", 0, None
        if first is None:
            first = page["seq"]
        line += _block(page, block, colour)
        used += block
    if line:
        yield f"{first or '':>6}  {line}"


def _block(page: Told, width: int, colour: bool) -> str:
    fill = _SWAPPED if not page["resident"] else _BACK if "recalledBefore" in page else _RESIDENT
    letter = _LETTERS.get(page["kind"], "?")
    letter = letter if page["resident"] else letter.lower()
    if not colour:
        return letter + _PLAIN[fill] * (width - 1)
    shade = f"{'' if page['resident'] else '2;'}{_COLOURS.get(page['kind'], 97)}"
    return f"\x1b[{shade}m{letter}{fill * (width - 1)}\x1b[0m"


def _legend(pages: Sequence[Told], scale: int, colour: bool) -> str:
    there = dict.fromkeys(page["kind"] for page in pages)
    told = [f"{_LETTERS.get(kind, '?')} {'note' if kind == 'episode' else kind}" for kind in there]
    signs = {
        name: sign if colour else _PLAIN[sign]
        for name, sign in {
            "in the window": _RESIDENT,
            "brought back": _BACK,
            "swapped (small letter)": _SWAPPED,
        }.items()
    }
    told += [f"{sign} {name}" for name, sign in signs.items()]
    return f"{'  '.join(told)}  one column is {scale:,} tokens"


def _none(obj: Told) -> str:
    whose = f"agent/{obj['metadata']['name']}"
    if (obj["spec"].get("memory") or {}).get("context") == "managed":
        return f"{whose} has no managed conversation of more than one turn."
    return f"The context of {whose} is not managed: see agentk explain agent.spec.memory.context"


def _cached(window: Told) -> str:
    read = window["readTokens"]
    return f"{window['cachedTokens'] / read:.0%}" if read else "0%"


def _others(windows: Sequence[Told]) -> list[str]:
    if not windows:
        return []
    return ["", f"{len(windows)} other conversations: -o json tells of them"]


def _windows(agent: str, namespace: str, **query: str) -> dict[str, Any]:
    told: dict[str, Any] = connect.connect().request(
        "GET", kinds.AGENT.path(namespace, agent, "windows"), query=query
    )
    return told


def _explained(agent: str, page: str, namespace: str) -> dict[str, Any]:
    """Of one agent, or of whichever of the namespace has the page."""
    if agent:
        return _windows(agent, namespace, page=page)
    for one in connect.connect().request("GET", kinds.AGENT.path(namespace))["items"]:
        if ((one["spec"].get("memory") or {}).get("context")) == "managed":
            try:
                return _windows(one["metadata"]["name"], namespace, page=page)
            except errors.NotFound:
                continue
    raise errors.NotFound(
        f"no agent in {namespace} namespace is shown a page {page}",
        hint="agentk memory map AGENT tells of pages; AGENT/NUMBER names one by its place",
    )
