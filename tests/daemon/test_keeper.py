"""Whom the keeper, which may be root, lets lead it."""

import os
from pathlib import Path

import pytest

from agentk.api import errors
from agentk.daemon import keeper
from agentk.data.places import Places


def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "state", tmp_path / "run")


def test_two_keepers_do_not_share_a_state(tmp_path: Path) -> None:
    held = keeper.lock(places(tmp_path))
    with pytest.raises(errors.AlreadyExists, match=str(os.getpid())):
        keeper.lock(places(tmp_path))
    os.close(held)
    os.close(keeper.lock(places(tmp_path)))


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "keeper.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError):
        keeper.lock(places(tmp_path))
    assert (tmp_path / "precious").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory away")
def test_a_state_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 12345, 12345)
    with pytest.raises(errors.Forbidden, match="12345"):
        keeper.lock(places(tmp_path))
    assert not list((tmp_path / "state").iterdir())


def test_a_private_state_goes_however_deep_it_is(tmp_path: Path) -> None:
    private = places(tmp_path)
    (private.state / "workspaces" / "u").mkdir(parents=True)
    folder = os.open(private.state / "workspaces" / "u", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=folder)
        deeper = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = deeper
    os.close(folder)
    keeper.Keeper(private, None)._remove_all()
    assert not private.state.exists()
