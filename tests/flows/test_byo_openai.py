"""The README's promise: an unmodified OpenAI program, its SDK fetched from the owner's own indexes, in a jail."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows import household
from tests.flows.household import Household
from tests.flows.test_examples import EXAMPLES, output

pytestmark = household.needs


@pytest.fixture(scope="module")
def reachable(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whether this machine's own pip gets the SDK; a machine without an index says so and is left alone."""
    folder = tmp_path_factory.mktemp("probe")
    options = ["--no-deps", "--only-binary", ":all:", "--retries", "1", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, "openai"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.skip(f"this machine's own pip does not get openai: {done.stderr.strip()[-300:]}")
    assert list(Path(folder).glob("openai-*.whl"))


def test_an_unmodified_openai_program_brings_its_packages(home: Household, reachable: None) -> None:
    lines = output(home, "byo-openai", "byo")
    assert lines[0].startswith("calls: weather") and "Lisbon" in lines[0]
    assert lines[1] == "answer: It is 21 degrees in Lisbon: leave the coat at home."
    assert lines[2] == "streamed: It is 21 degrees in Lisbon: leave the coat at home."


def test_a_long_chat_fits_4000_tokens_and_knows_turn_3(
    home: Household, reachable: None, tmp_path: Path
) -> None:
    """Fewer turns than the example has: each sends all that was said before."""
    folder = shutil.copytree(EXAMPLES / "long-chat", tmp_path / "long-chat")
    manifest = folder / "manifest.yaml"
    short = 'env: [{name: TURNS, value: "150"}]'
    manifest.write_text(
        manifest.read_text().replace("restartPolicy: Never", f"restartPolicy: Never\n  {short}")
    )
    lines = output(home, "long-chat", "chat", manifest=manifest)
    shown = int(lines[0].split()[-2].replace(",", ""))
    assert lines[0].startswith("301 messages") and 2_000 < shown <= 4_000
    assert lines[1] == "Your boat Halcyon is moored in Faro."
