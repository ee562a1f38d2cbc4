from collections.abc import Iterator
from pathlib import Path

import pytest
from sdk.gate import Gate


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    opened = Gate(tmp_path)
    yield opened
    opened.go_on()
    opened.close()
