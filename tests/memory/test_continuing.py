"""Clients that cut their own lists: known again by the end of their window, and never taken for another."""

from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agentk.memory import continuing, messages, tokens
from agentk.memory.messages import Request
from agentk.memory.pages import Page
from tests.memory import talking
from tests.memory.talking import STEPS, Talk

each = settings(deadline=None, max_examples=25)


def spoken(steps: Any, extra: str = "", size: int = 1_500) -> Talk:
    talk = Talk("openai.chat", talking.settings(size))
    for number, (asked, uses, said) in enumerate(steps):
        talk.say(*talking.user("", f"{asked}{extra}"))
        talk.send()
        for use, results in enumerate(uses):
            talk.say(*talking.tools("openai.chat", results, 10 * number + use))
            talk.send()
        talk.say(*talking.answer("", f"{said}{extra}"))
    return talk


def read(items: list[Any]) -> Request:
    request = messages.read("openai.chat", {"messages": items})
    assert request is not None
    return request


def kept(talk: Talk) -> dict[str, Page]:
    made = {}
    for slot in talk.window.slots:
        content = talk.kept[slot.id]
        text = messages.read("openai.chat", {"messages": [talk.items[slot.seq - 1]]})
        assert text is not None
        made[slot.id] = Page(
            slot.id, slot.kind, content, text.said[0].text, 1, 0.5, 0, 1.0, 1.0, 0, slot.unit, False, "", ()
        )
    return made


@each
@given(steps=STEPS, data=st.data())
def test_a_list_that_was_cut_is_made_whole_as_if_it_had_not_been(steps: Any, data: st.DataObject) -> None:
    talk = spoken(steps, extra=" and so on" * 9)
    talk.say(*talking.user("", "What now?"))
    cut = data.draw(st.integers(1, len(talk.items) - 1))
    request = read(talk.items[cut:])
    joined = continuing.joined(talk.window, request.said)
    assume(joined is not None)
    assert joined is not None
    whole, uncut = continuing.whole(request, talk.window, joined, kept(talk)), read(talk.items)
    for made, told in zip(whole.said, uncut.said, strict=True):
        assert (made.item, made.text, made.digest, made.chain) == (
            told.item,
            told.text,
            told.digest,
            told.chain,
        )
    fresh = len(uncut.said) - len(talk.window.slots)
    assert [told.joins for told in whole.said[-fresh:]] == [told.joins for told in uncut.said[-fresh:]]


@each
@given(one=STEPS, other=STEPS, shared=STEPS, data=st.data())
def test_two_conversations_of_one_agent_are_never_taken_for_each_other(
    one: Any, other: Any, shared: Any, data: st.DataObject
) -> None:
    """They may begin alike and end alike; each is its own, or a new one where nobody can tell."""
    extra = " and so on" * 9
    talks = [spoken([*mine, *shared], extra) for mine in (one, other)]
    assume([slot.digest for slot in talks[0].window.slots] != [slot.digest for slot in talks[1].window.slots])
    for own, talk in enumerate(talks):
        talk.say(*talking.user("", "What now?"))
        cut = data.draw(st.integers(1, len(talk.items) - 1))
        said = read(talk.items[cut:]).said
        several = [
            (at, joined)
            for at, any_talk in enumerate(talks)
            if (joined := continuing.joined(any_talk.window, said)) is not None
        ]
        chosen = continuing.chosen([(talks[at].window, joined) for at, joined in several])
        assert chosen is None or several[chosen][0] == own


def longer(n: int) -> list[Any]:
    return [
        item
        for i in range(n)
        for item in (
            {"role": "user", "content": f"Number {i}: what of it? {'x' * 80}"},
            {"role": "assistant", "content": f"It is number {i}. {'y' * 80}"},
        )
    ]


def windowed(items: list[Any]) -> Talk:
    talk = Talk("openai.chat", talking.settings(1_500))
    for at in range(0, len(items) - 1, 2):
        talk.items = items[: at + 1]
        talk.send()
    return talk


def test_a_summary_in_place_of_what_was_cut_leads_and_an_edit_is_no_cut() -> None:
    items = longer(12)
    talk = windowed(items)
    new = {"role": "user", "content": "And now?"}
    summary = {"role": "user", "content": "So far: numbers."}
    request = read([summary, *items[14:], new])
    joined = continuing.joined(talk.window, request.said)
    assert joined == continuing.Joined(head=0, lead=1, many=9)
    whole = continuing.whole(request, talk.window, joined, kept(talk))
    assert whole.first == (summary,) and whole.fixed > request.fixed
    assert [told.digest for told in whole.said] == [told.digest for told in read([*items, new]).said]
    kept_task = continuing.joined(talk.window, read([items[0], *items[10:], new]).said)
    assert kept_task == continuing.Joined(head=1, lead=0, many=13)
    edited = {"role": "user", "content": "Number 3, or so."}
    for at in (0, 1, 6):
        assert continuing.joined(talk.window, read([*items[:at], edited, *items[at + 1 :], new]).said) is None
        assert (
            at == 0 or continuing.joined(talk.window, read([*items[:at], *items[at + 1 :], new]).said) is None
        )
    assert continuing.joined(talk.window, read([*items[:8], *items[14:], new]).said) is None, (
        "a hole is no cut"
    )
    short = [{"role": "user", "content": "ok"}, {"role": "assistant", "content": "yes"}] * 6
    assert continuing.joined(windowed(short).window, read([*short[6:], new]).said) is None, (
        "anybody says that"
    )


def test_whoever_keeps_an_exchange_that_could_be_no_others_is_known_again() -> None:
    items = longer(12)
    talk = windowed(items)
    new = {"role": "user", "content": "And now?"}
    # The newest of the window, an exchange before it, and the newest two, which it does not have yet.
    assert continuing.joined(talk.window, read([*items[-4:], new]).said) is not None
    assert continuing.joined(talk.window, read([*items[-2:], new]).said) is None, "one message is not enough"
    assert continuing.joined(talk.window, read([items[-1], new]).said) is None, "nothing of it is said again"


def test_what_is_not_at_hand_keeps_its_size_whoever_counts() -> None:
    items = longer(12)
    talk = windowed(items)
    request = read([*items[14:], {"role": "user", "content": "And now?"}])
    joined = continuing.joined(talk.window, request.said)
    assert joined is not None
    whole = continuing.whole(request, talk.window, joined, {})
    weighed = messages.weighed(whole, len(whole.said), tokens.SCRIPTED)
    assert [told.tokens for told in weighed.said[:14]] == [slot.tokens for slot in talk.window.slots[:14]]
    assert weighed.said[-1].tokens == messages.weight(request.said[-1].item, tokens.SCRIPTED)
