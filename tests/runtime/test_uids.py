"""Claims on host uids, with real files and real processes racing for them."""

import os
from pathlib import Path

import pytest

from agentk.api import errors
from agentk.runtime import uids

WHOLE = "         0          0 4294967295\n"


def test_a_block_is_kept_by_its_state(tmp_path: Path) -> None:
    first = uids.block(tmp_path, "a", claims=tmp_path / "claims")
    assert uids.block(tmp_path, "other", claims=tmp_path / "claims") == first
    assert len(first) == uids.SIZE and first.start >= uids.BASE


def test_two_states_never_share_a_block(tmp_path: Path) -> None:
    states = [tmp_path / name for name in "abc"]
    blocks = [uids.block(state, "same", claims=tmp_path / "claims") for state in states]
    assert len({block.start for block in blocks}) == 3


def test_racing_daemons_get_blocks_of_their_own(tmp_path: Path) -> None:
    children = []
    for number in range(8):
        pid = os.fork()
        if pid == 0:
            found = uids.block(tmp_path / str(number), "same", claims=tmp_path / "claims")
            (tmp_path / f"found-{found.start}").touch()
            os._exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 8
    assert len(list(tmp_path.glob("found-*"))) == 8


def test_a_block_whose_owner_is_gone_is_used_last(tmp_path: Path) -> None:
    claims = tmp_path / "claims"
    gone = uids.block(tmp_path / "gone", "same", claims=claims)
    assert uids.block(tmp_path / "new", "same", claims=claims) != gone
    for number in range(uids.BLOCKS):
        if not (claims / f"{number:03}").exists():
            (claims / f"{number:03}").write_text(str(tmp_path))
    (
        claims / f"{(uids.block(tmp_path / 'new', '', claims=claims).start - uids.BASE) // uids.SIZE:03}"
    ).write_text("/")
    assert uids.block(tmp_path / "third", "same", claims=claims) == gone


def test_a_released_block_is_free_again(tmp_path: Path) -> None:
    first = uids.block(tmp_path / "a", "same", claims=tmp_path / "claims")
    uids.release(tmp_path / "a", claims=tmp_path / "claims")
    uids.release(tmp_path / "a", claims=tmp_path / "claims")
    assert uids.block(tmp_path / "b", "same", claims=tmp_path / "claims") == first


def test_no_block_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "claims").mkdir()
    for number in range(uids.BLOCKS):
        (tmp_path / "claims" / f"{number:03}").write_text("/")
    with pytest.raises(errors.Unavailable, match="no block of 10000 host uids") as caught:
        uids.block(tmp_path, "a", claims=tmp_path / "claims")
    assert "claims" in caught.value.hint


def test_subordinate_ranges_of_people_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        uids, "_subordinate", lambda file: iter([range(uids.BASE, uids.BASE + 500 * uids.SIZE)])
    )
    assert uids.block(tmp_path, "a", claims=tmp_path / "claims").start >= uids.BASE + 500 * uids.SIZE


def test_every_block_is_there_outside_of_a_user_namespace() -> None:
    assert len(uids.mapped_blocks((WHOLE, WHOLE))) == uids.BLOCKS


def test_blocks_in_a_small_user_namespace_are_inside_of_it() -> None:
    small = "0 1000 1\n1 100000 65536\n"
    blocks = uids.mapped_blocks((small, small))
    assert [blocks[number] for number in (0, 4)] == [range(55537, 65537), range(15537, 25537)]
    assert len(blocks) == 5


def test_a_user_namespace_with_one_uid_has_no_block() -> None:
    assert uids.mapped_blocks(("0 1000 1\n", "0 1000 1\n")) == {}
