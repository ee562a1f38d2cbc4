"""What a provider says it used goes into a ledger: no number of its making may break one."""

import json
import sqlite3

import pytest

from agentk.llm import asking, metering

CHAT = asking.Ask("openai.chat", {"model": "m", "messages": [{"role": "user", "content": "hi"}]})
MESSAGES = asking.Ask("anthropic.messages", {"model": "m", "messages": []})


@pytest.mark.parametrize("number", [2**63 - 1, 2**62, 10**300, -1, 1.5, "7", True, None])
def test_an_absurd_count_is_counted_by_us_instead(number: object) -> None:
    chat = metering.Meter(CHAT, "m")
    chat.document({"choices": [], "usage": {"prompt_tokens": number, "completion_tokens": number}})
    message = metering.Meter(MESSAGES, "m")
    message.document({"content": [], "usage": {"input_tokens": number, "output_tokens": number}})
    for told in (chat.usage(), message.usage()):
        assert told.counted
        assert 0 <= told.input_tokens < 10_000 and 0 <= told.output_tokens < 10_000


def test_the_largest_that_is_believed_adds_up_in_a_ledger() -> None:
    """A sum that overflows is an error of the database, at every start of the daemon."""
    amounts = json.dumps({"tokens": 2 * asking.TOKENS_MAX})
    conn = sqlite3.connect(":memory:")
    conn.execute("CREATE TABLE used (amounts TEXT)")
    conn.executemany("INSERT INTO used VALUES (?)", [(amounts,)] * 100_000)
    assert conn.execute("SELECT sum(json_extract(amounts, '$.tokens')) FROM used").fetchone()[0] < 2**62
