"""The first and the last of what was said, however it came."""

from hypothesis import given
from hypothesis import strategies as st

from agentk.runtime.ends import Ends


@given(st.lists(st.binary(max_size=30)), st.integers(0, 60))
def test_first_and_last_half_are_kept_however_it_comes(parts: list[bytes], limit: int) -> None:
    ends, whole = Ends(limit), b"".join(parts)
    for part in parts:
        ends.add(part)
    first, last = limit - limit // 2, limit // 2
    wanted = whole if len(whole) <= limit else whole[:first] + whole[len(whole) - last :]
    assert (ends.kept(), ends.truncated) == (wanted, len(whole) > limit)
