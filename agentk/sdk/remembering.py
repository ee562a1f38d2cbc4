"""The calls of `calls` about an agent's memory.

Runs in jails: Python 3.9, standard library only.
"""

from __future__ import annotations

from typing import Optional, Sequence

from agentk.sdk import answers, results
from agentk.sdk.answers import Call, as_tuple, given

Texts = Optional[Sequence[str]]


def memory_remember(
    content: str, *, name: Optional[str] = None, kind: Optional[str] = None, tags: Texts = None,
    importance: Optional[float] = None, pinned: Optional[bool] = None, agent: Optional[str] = None,
) -> Call[results.Remembered]:  # fmt: skip
    """Keeps a text.  `agent.memory_remember("Invoices are due on the 5th.", name="invoices").id` → "p3f…" """
    told = None if tags is None else list(tags)
    params = given(name=name, kind=kind, tags=told, importance=importance, pinned=pinned, agent=agent)
    return Call("memory.remember", {"content": content, **params}, as_tuple(results.Remembered))


def memory_recall(
    query: Optional[str] = None, *, ids: Texts = None, names: Texts = None, limit: Optional[int] = None,
    max_tokens: Optional[int] = None, kinds: Texts = None, tags: Texts = None,
    since: Optional[float] = None, until: Optional[float] = None, agents: Texts = None,
) -> Call[results.Recalled]:  # fmt: skip
    """Brings pages back whole.  `agent.memory_recall("when are invoices due?").items[0].content` → "Invoices …" """
    params = given(
        query=query, ids=ids, names=names, limit=limit, maxTokens=max_tokens, kinds=kinds, tags=tags,
        since=since, until=until, agents=agents,
    )  # fmt: skip
    items = answers.a_list("items", results.Page)
    return Call(
        "memory.recall",
        params,
        lambda raw: results.Recalled(items(raw), raw.get("missing", ()), raw.get("left", 0)),
    )


def memory_search(
    query: Optional[str] = None, *, limit: Optional[int] = None, kinds: Texts = None, tags: Texts = None,
    since: Optional[float] = None, until: Optional[float] = None, agents: Texts = None,
) -> Call[results.Searched]:  # fmt: skip
    """A line of each, the best first; the newest without a question.  `agent.memory_search("invoice").items` → […]"""
    params = given(query=query, limit=limit, kinds=kinds, tags=tags, since=since, until=until, agents=agents)
    items = answers.a_list("items", results.Page)
    rest = as_tuple(results.Searched)
    return Call("memory.search", params, lambda raw: rest({**raw, "items": items(raw)}))


def memory_forget(*, ids: Texts = None, names: Texts = None) -> Call[results.Forgotten]:
    """Forgets pages for good.  `agent.memory_forget(names=["invoices"]).erased` → True"""
    return Call("memory.forget", given(ids=ids, names=names), as_tuple(results.Forgotten))
