"""The host's pip configuration reaches the guest's build, whatever it names."""

from pathlib import Path

from tests.vm import pip_settings


def test_the_environment_wins_over_files_and_the_rest_stays_out() -> None:
    listed = ":env:.timeout='9'\nglobal.find-links='/a /b'\nglobal.target='/elsewhere'\nglobal.timeout='5'\n"
    assert pip_settings.variables(listed) == {"PIP_TIMEOUT": "9", "PIP_FIND_LINKS": "/a /b"}


def test_a_local_index_brings_its_neighbours(tmp_path: Path) -> None:
    simple, files = tmp_path / "index/simple", tmp_path / "index/files"
    simple.mkdir(parents=True)
    files.mkdir()
    assert pip_settings.local_paths(f"file://{simple} https://example.invalid/x") == {simple, files}


def test_what_does_not_exist_is_left_out(tmp_path: Path) -> None:
    assert pip_settings.local_paths(f"{tmp_path} {tmp_path}/none") == {tmp_path}
