"""What calls answer with: tuples with names. Fields a newer gate adds are left out, missing ones have a default."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence


class Me(NamedTuple):
    """Who this agent is."""

    version: str = ""
    protocol: int = 1
    namespace: str = ""
    agent: str = ""
    uid: str = ""
    attempt: int = 1
    run_id: str = ""
    methods: Sequence[str] = ()
    limits: Mapping[str, int] = {}


class Usage(NamedTuple):
    """What a model used. `counted`: an estimate, because the provider did not say."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: str = "0.00"
    counted: bool = False


class Thought(NamedTuple):
    """A model's answer; as text it is just that."""

    text: str = ""
    reasoning: str = ""
    message: Mapping[str, Any] = {}
    tool_calls: Sequence[Dict[str, Any]] = ()
    finish_reason: str = ""
    model: str = ""
    usage: Usage = Usage()

    def __str__(self) -> str:
        return self.text


class Embedded(NamedTuple):
    """Vectors, one a text, in order."""

    embeddings: Sequence[List[float]] = ()
    model: str = ""
    usage: Usage = Usage()


class Ran(NamedTuple):
    """How a program ended, or that it is still running; as text it is what it printed."""

    id: str = ""
    state: str = "Exited"
    exit_code: int = 0
    reason: str = ""
    stdout: str = ""
    stderr: str = ""
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    duration_seconds: float = 0.0
    session: str = ""

    @property
    def ok(self) -> bool:
        return self.state == "Exited" and self.exit_code == 0

    def __str__(self) -> str:
        return self.stdout


class Listed(NamedTuple):
    """One tool, in a line."""

    name: str = ""
    tool: str = ""
    description: str = ""


class Tools(NamedTuple):
    """A page of tools. `unavailable`: granted, and nobody knows now what they offer."""

    items: Sequence[Listed] = ()
    continue_: str = ""
    unavailable: Sequence[Dict[str, str]] = ()


class Described(NamedTuple):
    """One tool with the JSON Schema of its arguments."""

    name: str = ""
    tool: str = ""
    description: str = ""
    input_schema: Mapping[str, Any] = {}
    output_schema: Optional[Mapping[str, Any]] = None
    annotations: Mapping[str, Any] = {}
    digest: str = ""


class Answered(NamedTuple):
    """What a tool answered; as text it is its texts. `file`: where the whole is, when this is a summary."""

    content: Sequence[Dict[str, Any]] = ()
    structured: Any = None
    is_error: bool = False
    file: Optional[Mapping[str, Any]] = None

    def __str__(self) -> str:
        return "\n".join(str(block["text"]) for block in self.content if block.get("type") == "text")


class Progress(NamedTuple):
    """How far a tool is."""

    progress: Optional[float] = None
    total: Optional[float] = None
    message: str = ""


class SkillLine(NamedTuple):
    """One Skill, in a line. `module`: what Python imports it as."""

    name: str = ""
    namespace: str = ""
    module: str = ""
    version: int = 0
    saved: bool = False
    description: str = ""


class Skills(NamedTuple):
    """A page of Skills."""

    items: Sequence[SkillLine] = ()
    continue_: str = ""


class Skill(NamedTuple):
    """One Skill with its SKILL.md; or, as `content`, one file of it."""

    name: str = ""
    namespace: str = ""
    module: str = ""
    version: int = 0
    saved: bool = False
    description: str = ""
    digest: str = ""
    text: str = ""
    files: Sequence[Dict[str, Any]] = ()
    content: str = ""
    encoding: str = ""
    bytes: int = 0


class SavedSkill(NamedTuple):
    name: str = ""
    version: int = 0
    digest: str = ""


class Remembered(NamedTuple):
    """What was kept."""

    id: str = ""
    name: str = ""
    tokens: int = 0
    replaced: str = ""
    embedded: bool = False


class Page(NamedTuple):
    """A piece of memory: whole with `content`, or a line of it as `snippet`."""

    id: str = ""
    name: str = ""
    kind: str = ""
    agent: str = ""
    tags: Sequence[str] = ()
    tokens: int = 0
    importance: float = 0.0
    created: float = 0.0
    content: str = ""
    encoding: str = ""
    snippet: str = ""
    similarity: Optional[float] = None
    by: Sequence[str] = ()


class Recalled(NamedTuple):
    """Pages, whole."""

    items: Sequence[Page] = ()
    missing: Sequence[str] = ()
    left: int = 0


class Searched(NamedTuple):
    """Pages, a line each; and how many there are, and have vectors."""

    items: Sequence[Page] = ()
    pages: int = 0
    embedder: str = ""
    embedded: int = 0


class Forgotten(NamedTuple):
    """What is gone; `erased`: from every file of the daemon; `checkpoints`: so many had some of it."""

    forgotten: Sequence[str] = ()
    erased: bool = False
    checkpoints: int = 0


class SkillRun(NamedTuple):
    """What a Skill did. `result`: what its function returned."""

    result: Any = None
    exit_code: int = 0
    reason: str = ""
    stdout: str = ""
    stderr: str = ""
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    duration_seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.exit_code == 0


class Spawned(NamedTuple):
    name: str = ""
    uid: str = ""


class Member(NamedTuple):
    """An agent of the family, as agent_list shows it."""

    name: str = ""
    uid: str = ""
    parent: str = ""
    phase: str = ""
    reason: str = ""
    exit_code: Optional[int] = None
    labels: Mapping[str, str] = {}
    creation_timestamp: str = ""


class Members(NamedTuple):
    items: Sequence[Member] = ()
    continue_: str = ""


class Ended(NamedTuple):
    """How an agent that was waited for stands."""

    name: str = ""
    finished: bool = False
    phase: str = ""
    reason: str = ""
    exit_code: Optional[int] = None
    message: str = ""
    result: Any = None


class Message(NamedTuple):
    id: str = ""
    from_: str = ""
    body: Any = None
    reply_to: str = ""
    sent_at: str = ""
    deliveries: int = 1


class Delivered(NamedTuple):
    id: str = ""
    delivered: int = 0


class Event(NamedTuple):
    id: int = 0
    type: str = ""
    source: str = ""
    data: Any = None
    time: str = ""


class Heard(NamedTuple):
    """How a subscription ended."""

    delivered: int = 0
    last_id: int = 0


class Value(NamedTuple):
    exists: bool = False
    value: Any = None
    version: int = 0
    expires_at: str = ""


class Key(NamedTuple):
    key: str = ""
    version: int = 0


class Keys(NamedTuple):
    items: Sequence[Key] = ()
    continue_: str = ""


class Swap(NamedTuple):
    """Whether it was kept; if not, what is there."""

    swapped: bool = False
    version: int = 0
    value: Any = None


class Lock(NamedTuple):
    acquired: bool = False
    token: str = ""
    fence: int = 0
    expires_at: str = ""


class Item(NamedTuple):
    id: str = ""
    item: Any = None
    put_at: str = ""
    deliveries: int = 1


class Reply(NamedTuple):
    """Answer of an HTTP server. `body` is text, or base64 when `encoding` says so."""

    status: int = 0
    url: str = ""
    headers: Mapping[str, str] = {}
    body: str = ""
    encoding: str = "utf-8"
    truncated: bool = False

    def read(self) -> bytes:
        """The body as bytes."""
        if self.encoding == "base64":
            from binascii import a2b_base64

            return a2b_base64(self.body)
        return self.body.encode()


class Piece(NamedTuple):
    """The next piece of a streamed answer or output."""

    text: str = ""
    reasoning: str = ""
    tool_calls: Sequence[Dict[str, Any]] = ()
    stdout: str = ""
    stderr: str = ""
