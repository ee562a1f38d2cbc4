"""What is typed into the screen: an order that begins with a slash, or a line for the agent."""

from dataclasses import dataclass

MEM, C, WIPE, QUIT, HELP = "/mem", "/c", "/wipe", "/quit", "/help"
APPROVE, DENY, ANSWER = "/approve", "/deny", "/answer"
ALL = frozenset({MEM, C, WIPE, QUIT, HELP, APPROVE, DENY, ANSWER})
SURE = "yes"
ABOUT = """\
/mem [WORDS]   the newest cells of M, or those that WORDS find
/c             what C is made of
/wipe          forget all of M for good; asks first
/approve NAME  let a call through that waits for a person, exactly as it was asked; without NAME see what it is given
/deny NAME WHY refuse it; a part of a name that only one has is enough
/answer NAME … answer a question
/quit          end the looking on, not the agent; as Ctrl-C
Tab and Shift-Tab go from pane to pane, arrows and PgUp PgDn scroll, G goes to the end and stays there.
What begins with // is told to the agent, with one slash."""


@dataclass(frozen=True)
class Order:
    """`name` is "" for a line that the agent is to read."""

    name: str
    words: str


def read(text: str) -> Order:
    """Raises ValueError for a word that is no order."""
    if text.startswith("//"):
        return Order("", text[1:])
    if not text.startswith("/"):
        return Order("", text)
    name, _, rest = text.strip().partition(" ")
    if name not in ALL:
        raise ValueError(f"{name} is no order: /help tells of those there are")
    return Order(name, rest.strip())
