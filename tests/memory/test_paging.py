"""What must be true of every window, whatever is said: held against conversations that nobody thought of."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentk.memory import folding, layout, messages, recalling, tokens, turning, window
from tests.memory import talking
from tests.memory.talking import DIALECTS, STEPS, Talk

each = settings(deadline=None, max_examples=25)
SIZES = st.integers(800, 1_500)


def spoken(talk: Talk, steps: Any) -> Any:
    """Plays a conversation; every prompt that was sent, with the request it stands for."""
    for number, (asked, uses, said) in enumerate(steps):
        talk.say(*talking.user(talk.dialect, f"{number} {asked}"))
        yield talk.send()
        for use, results in enumerate(uses):
            talk.say(*talking.tools(talk.dialect, results, 10 * number + use))
            yield talk.send()
        talk.say(*talking.answer(talk.dialect, said))


def counted(request: messages.Request, prompt: layout.Prompt) -> int:
    """Anew, from what would be sent."""
    return request.fixed + sum(
        messages.weight(item, tokens.ESTIMATE) for item in prompt.items[len(request.first) :]
    )


# Notes of what is mostly backslashes: as a part of a JSON string they have twice the bytes.
BACKSLASHES = [
    ("a", [["chedahcédi"], ["fh", '"ggbé🦊h日h🦊dhah', ' "aeg"jgc\\jh日\\cg\ng"']], "cdd"),
    ("\\", [], "\\"),
    ("\\", [], "\\"),
    ("\\" * 9 + "a", [["d", "\\", "\\" * 5]], "\\"),
    ("\\" * 9 + "a", [["d", "\\", "\\" * 5]], "\\"),
    ("\\" * 28, [["\\\\", "\\\\", "\\" * 8 + "e"]], "\\"),
    ("\\" * 6 + "d🦊e", [["\\"], ["\\\\\\e", "\\\\\\"]], "\\"),
    ("\\", [], "\\"),
    ("\\", [], "\\"),
    ("\\", [["\\"], ["\\"]], "\\"),
]


@pytest.mark.parametrize("dialect", DIALECTS)
@each
@given(steps=STEPS, size=SIZES)
@example(steps=BACKSLASHES, size=822)
@example(steps=BACKSLASHES, size=896)
@example(steps=BACKSLASHES, size=1_039)
@example(steps=BACKSLASHES, size=1_322)
def test_a_prompt_is_never_over_its_budget(dialect: str, steps: Any, size: int) -> None:
    for prompt, _, request in spoken(Talk(dialect, talking.settings(size)), steps):
        assert counted(request, prompt) == prompt.tokens <= size


@pytest.mark.parametrize("dialect", DIALECTS)
@each
@given(steps=STEPS, size=SIZES)
def test_order_is_kept_and_no_call_is_parted_from_its_results(dialect: str, steps: Any, size: int) -> None:
    talk = Talk(dialect, talking.settings(size))
    for prompt, _, request in spoken(talk, steps):
        shown = talk.shown(prompt)
        places = [
            next(
                n for n, item in enumerate(request.first + tuple(t.item for t in request.said)) if item is one
            )
            for one in shown
        ]
        assert places == sorted(set(places)), "the very objects that came, in their order"
        assert talking.calls_of(shown) == talking.results_of(shown)


@pytest.mark.parametrize("dialect", DIALECTS)
@each
@given(steps=STEPS, size=SIZES)
def test_what_is_pinned_and_what_is_new_is_always_shown(dialect: str, steps: Any, size: int) -> None:
    talk = Talk(dialect, talking.settings(size))
    for prompt, _, request in spoken(talk, steps):
        for item in (*request.first, request.said[-1].item):
            assert any(one is item for one in prompt.items)
        for slot, told in zip(talk.window.slots, request.said, strict=True):
            assert not slot.pinned or any(one is told.item for one in prompt.items)


@pytest.mark.parametrize("dialect", DIALECTS)
@each
@given(steps=STEPS, size=SIZES)
def test_whatever_left_comes_back_byte_for_byte(dialect: str, steps: Any, size: int) -> None:
    talk = Talk(dialect, talking.settings(size))
    _, _, request = list(spoken(talk, steps))[-1]
    for slot, told in zip(talk.window.slots, request.said, strict=True):
        assert talk.kept[slot.id] == told.content
        assert json.loads(talk.kept[slot.id]) == told.item
        if not slot.resident:
            back = recalling.brought(talk.window, [slot.unit], talk.now)
            prompt = layout.arranged(back, request, talk.notes)
            assert any(told.text in str(item.get("content")) for item in prompt.items)
            assert {one.resident for one in back.slots if one.unit == slot.unit} == {True}


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(deadline=None, max_examples=20)
@given(steps=STEPS, size=SIZES)
def test_the_same_words_make_the_same_prompts(dialect: str, steps: Any, size: int) -> None:
    one, other = (
        [prompt for prompt, _, _ in spoken(Talk(dialect, talking.settings(size)), steps)] for _ in range(2)
    )
    assert one == other


@each
@given(steps=STEPS, size=SIZES)
def test_a_note_tells_of_pages_once_and_never_of_notes(steps: Any, size: int) -> None:
    talk = Talk("openai.chat", talking.settings(size))
    for prompt, _, _ in spoken(talk, steps):
        notes = {note.id for note in talk.window.notes}
        assert notes.isdisjoint(slot.id for slot in talk.window.slots)
        assert all(slot.note in notes for slot in talk.window.slots if not slot.resident)
        recap = sum(note.tokens for note in talk.window.notes if note.resident)
        assert recap <= size * talk.settings.bounds.recap
        assert sum(str(item.get("content")).startswith(layout.RECAP) for item in prompt.items) <= 1


@each
@given(steps=STEPS, size=SIZES)
def test_a_fold_that_fails_leaves_all_as_it_is(steps: Any, size: int) -> None:
    talk = Talk("openai.chat", talking.settings(size), folds=False)
    for prompt, turn, _ in spoken(talk, steps):
        assert prompt.tokens <= size
        assert talk.window.slots == turn.window.slots and not talk.window.notes
        waiting = [slot.id for slot in talk.window.slots if not slot.resident]
        episode = folding.due(talk.window, {})
        assert [page.id for page in episode.pages] == waiting if episode else not waiting


@each
@given(steps=STEPS, size=SIZES, data=st.data())
def test_a_client_that_edits_its_history_is_not_told_what_it_took_back(
    steps: Any, size: int, data: st.DataObject
) -> None:
    talk = Talk("openai.chat", talking.settings(size))
    for _ in spoken(talk, steps):
        pass
    place = data.draw(st.integers(0, len(talk.items) - 1))
    taken = talk.items[place:]
    talk.items = [*talk.items[:place], {"role": "user", "content": "XYZZY"}]
    prompt, _, request = talk.send()
    assert [slot.digest for slot in talk.window.slots] == [told.digest for told in request.said]
    assert all(item not in talk.items for item in taken if any(one is item for one in prompt.items))
    assert all(note.seq <= place for note in talk.window.notes)


def test_what_cannot_leave_and_does_not_fit_is_refused() -> None:
    talk = Talk("openai.chat", talking.settings(300), system="s" * 2_000)
    talk.say({"role": "user", "content": "hi"})
    with pytest.raises(window.TooSmall, match="the budget is 300"):
        talk.send()


def test_a_page_that_is_asked_about_comes_back_where_it_is_asked_for() -> None:
    talk = Talk("openai.chat", talking.settings(1_000))
    talk.say({"role": "user", "content": "Be brief."}, {"role": "assistant", "content": "Yes."})
    talk.say(
        {"role": "user", "content": "My boat is called Halcyon."}, {"role": "assistant", "content": "Nice."}
    )
    for n in range(60):
        talk.say({"role": "user", "content": f"Tell me of number {n}, in some detail."})
        talk.send()
        talk.say({"role": "assistant", "content": f"The number {n} is a number as any other."})
    boat = talk.window.slots[2]
    assert not boat.resident and boat.evictions == 1
    talk.say({"role": "user", "content": "What is my boat called?"})
    prompt, turn, _ = talk.send()
    assert turn.recalled == (boat.unit,)
    assert prompt.items[-1]["content"] == "What is my boat called?"
    assert prompt.items[-2]["content"].startswith(layout.QUOTE)
    assert "My boat is called Halcyon." in prompt.items[-2]["content"]
    assert "recalled:3-4" in prompt.shown
    talk.say({"role": "assistant", "content": "Halcyon."}, {"role": "user", "content": "Thanks."})
    again, _, _ = talk.send()
    assert again.items[: len(prompt.items)] == prompt.items, "what is cached stays true"
    assert again.prefix == prompt.tokens


def test_a_window_knows_its_request_again_without_the_marks_of_a_cache() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    first = [{"role": "user", "content": [{"type": "text", "text": "hi", **mark}]}]
    later = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    one, other = (
        messages.read("anthropic.messages", {"messages": items, "max_tokens": 1}) for items in (first, later)
    )
    assert one and other and one.said[0].digest == other.said[0].digest


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        ("openai.responses", {"input": "hi"}),
        ("openai.responses", {"input": [{"role": "user", "content": "x"}], "previous_response_id": "r"}),
        ("openai.responses", {"input": [{"type": "item_reference", "id": "i"}]}),
        ("openai.chat", {"messages": []}),
        ("openai.embeddings", {"input": "hi"}),
    ],
)
def test_what_has_no_conversation_is_left_alone(dialect: str, body: dict[str, Any]) -> None:
    assert messages.read(dialect, body) is None


def test_the_first_task_stays_unless_it_is_most_of_the_budget() -> None:
    for size, pinned in ((2_000, True), (600, False)):
        talk = Talk("openai.chat", talking.settings(size))
        talk.say({"role": "user", "content": "task " * 100}, {"role": "assistant", "content": "ok"})
        talk.send()
        assert talk.window.slots[0].pinned is pinned
        assert turning.TASK_SHARE == 0.25
