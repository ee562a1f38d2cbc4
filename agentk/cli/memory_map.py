"""`agentk memory map` and `explain`: what an agent's model is shown, drawn; and why a page is, or is not, among it.

A page is a block as wide as it has tokens. In pipes, and wherever colours are not wanted, letters tell the kinds and
signs what is in the window; nothing is told by colour alone.
"""

import itertools
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
_LEGIBLE = 4  # columns of a swapped page that has its letter
_ALIKE = 3  # lines without a page of the window of which one is drawn
_PARTS = {"fixed": ("F", "95"), "notes": ("N", "96"), "messages": ("M", "92"), "recalled": ("R", "93")}
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
    """One window as lines: what the budget is filled with, and each page in its place."""
    tokens, budget = window["tokens"], window["budgetTokens"]
    share = f" ({tokens['total'] / budget:.0%})" if budget else ""
    yield f"agent/{agent}  {tokens['total']:,} of {budget:,} tokens{share}"
    yield from _filled(tokens, budget, width, colour)
    yield ""
    pages = window["pages"]
    scale = _scale(pages, width)
    yield from _folded(_rows(pages, width, scale, colour))
    if window["leftOut"]:
        yield f"        {window['leftOut']:,} older pages are not drawn"
    yield ""
    yield _legend(pages, scale, colour)
    yield (
        f"{window['resident']:,} pages in the window, {window['swapped']:,} swapped; "
        f"{window['evictions']:,} evictions, {window['faults']:,} faults, {window['folds']:,} notes written"
    )
    yield (
        f"{window['prompts']:,} prompts; {window['prefix']:.0%} of each is how the one before began, "
        f"{_cached(window)} came from a provider's cache"
    )
    yield f"counted by: {_counter(window)}"


def _filled(tokens: Told, budget: int, width: int, colour: bool) -> Iterator[str]:
    """The budget as a bar, and what its parts are."""
    whole, bar, told, used, sofar = max(budget, tokens["total"], 1), "", [], 0, 0
    for name, (letter, shade) in _PARTS.items():
        sofar += tokens[name]
        cells = (
            round(sofar * (width - 1) / whole) - used
        )  # of the sum, so that what is rounded does not add up
        used += cells
        bar += _painted(
            (letter + _RESIDENT * (cells - 1) if colour else letter * cells)[:cells], shade, colour
        )
        told.append(f"{_painted(letter, shade, colour)} {name} {tokens[name]:,}")
    free = _sign(_SWAPPED, colour)
    yield f"       [{bar}{free * (width - 1 - used)}]"
    yield f"        {'  '.join(told)}  {free} free {max(0, budget - tokens['total']):,}"


def explained(told: Told) -> Iterator[str]:
    page = told["page"]
    yield columns.safe(
        f"page {page['id']}  message {page['seq']}  {page['kind']}  {page['tokens']:,} tokens  "
        f"{'in the window' if page['resident'] else 'swapped'}  counted by: {told['countedBy']}"
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
            ("Part", "Weight", "Points"), [*rows, ["total", "-", f"{score['total']:.3f}"]]
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


def _rows(pages: Sequence[Told], width: int, scale: int, colour: bool) -> Iterator[tuple[str, int, bool]]:
    """Blocks in the order of what they are of; each line begins with the place of its first page. With each line, how
    many pages it has, and whether any of them is in the window."""
    row, used = list[Told](), 0
    for page in pages:
        block = _width(page, scale)
        if row and used + block > width:
            yield _row(row, scale, colour)
            row, used = [], 0
        row.append(page)
        used += block
    if row:
        yield _row(row, scale, colour)


def _row(pages: Sequence[Told], scale: int, colour: bool) -> tuple[str, int, bool]:
    line = "".join(_block(page, _width(page, scale), colour) for page in pages)
    first = next((page["seq"] for page in pages if page["seq"]), "")
    return f"{first:>6}  {line}", len(pages), any(page["resident"] for page in pages)


def _folded(rows: Iterable[tuple[str, int, bool]]) -> Iterator[str]:
    """Of lines that are all swapped the first alone: what counts is where the others are."""
    for shown, some in itertools.groupby(rows, key=lambda row: row[2]):
        lines = list(some)
        if shown or len(lines) < _ALIKE:
            yield from (line for line, _, _ in lines)
            continue
        yield lines[0][0]
        yield f"        … {sum(many for _, many, _ in lines[1:]):,} more pages, all swapped"


def _block(page: Told, width: int, colour: bool) -> str:
    fill = _SWAPPED if not page["resident"] else _BACK if "recalledBefore" in page else _RESIDENT
    letter, shade = _LETTERS.get(page["kind"], "?"), _COLOURS.get(page["kind"], 97)
    if not page["resident"]:  # small, and where it is one dot of many it is no letter at all
        noted = page["kind"] in ("note", "episode")
        letter = letter.lower() if noted or width >= _LEGIBLE else _sign(fill, colour)
        return _painted(letter + _sign(fill, colour) * (width - 1), f"2;{shade}", colour)
    return _painted(letter + _sign(fill, colour) * (width - 1), str(shade), colour)


def _legend(pages: Sequence[Told], scale: int, colour: bool) -> str:
    there = dict.fromkeys(page["kind"] for page in pages)
    told = [f"{_LETTERS.get(kind, '?')} {'note' if kind == 'episode' else kind}" for kind in there]
    signs = {_RESIDENT: "in the window", _BACK: "brought back", _SWAPPED: "swapped"}
    told += [f"{_sign(sign, colour)} {name}" for sign, name in signs.items()]
    return f"        {'  '.join(told)}; a column is {scale:,} tokens"


def _sign(sign: str, colour: bool) -> str:
    return sign if colour else _PLAIN[sign]


def _painted(text: str, shade: str, colour: bool) -> str:
    return f"\x1b[{shade}m{text}\x1b[0m" if colour and text else text


def _none(obj: Told) -> str:
    whose = f"agent/{obj['metadata']['name']}"
    if (obj["spec"].get("memory") or {}).get("context") == "managed":
        return f"{whose} has no managed conversation of more than one turn."
    return f"The context of {whose} is not managed: see agentk explain agent.spec.memory.context"


def _cached(window: Told) -> str:
    read = window["readTokens"]
    return f"{window['cachedTokens'] / read:.0%}" if read else "0%"


def _counter(window: Told) -> str:
    name, correction = columns.safe(str(window["countedBy"])), window["correction"]
    if correction is None:
        return name + ("" if name == "scripted" else ", no provider said yet what it read")
    return name if correction == 1 else f"{name}, times {correction:g} by what providers read"


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
