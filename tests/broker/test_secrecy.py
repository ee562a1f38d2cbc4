"""Values of Secrets are found where they are needed and taken out of what is written, for as long as they are there."""

import base64
from typing import Any

import pytest

from agentk.api import errors, kinds
from agentk.broker.secrecy import Secrecy

pytestmark = pytest.mark.anyio
VALUE = "s3cr3t-t0ken-of-n"


def secret(name: str = "gh", namespace: str = "n", **data: str | bytes) -> dict[str, Any]:
    encoded = {
        key: base64.b64encode(value if isinstance(value, bytes) else value.encode()).decode()
        for key, value in data.items()
    }
    return {"metadata": {"name": name, "namespace": namespace}, "data": encoded}


@pytest.fixture
def secrecy() -> Secrecy:
    made = Secrecy()
    made.hear(kinds.SECRET, secret(token=VALUE + "\n", raw=b"\xff\xfe"), False)
    return made


async def test_a_value_is_told_without_the_newline_an_editor_left(secrecy: Secrecy) -> None:
    assert await secrecy.value("n", "gh", "token") == VALUE


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (("n", "other", "token"), 'Secret "other" not found in namespace "n"'),
        (("m", "gh", "token"), 'Secret "gh" not found in namespace "m"'),
        (("n", "gh", "key"), 'Secret "gh" has no key "key"'),
        (("n", "gh", "raw"), 'key "raw" of Secret "gh" is not text'),
    ],
)
async def test_what_is_missing_is_named(secrecy: Secrecy, where: tuple[str, str, str], told: str) -> None:
    with pytest.raises(errors.NotFound) as caught:
        await secrecy.value(*where)
    assert caught.value.message == told and VALUE not in str(caught.value)


def test_values_are_taken_out_while_the_secret_is_there(secrecy: Secrecy) -> None:
    text = f"before {VALUE} after".encode()
    assert secrecy.redact(text) == b"before [redacted] after"
    secrecy.hear(kinds.SECRET, secret(token="quite another one"), False)
    assert secrecy.redact(text) == text
    assert b"another" not in secrecy.redact(b"quite another one")
    secrecy.hear(kinds.SECRET, secret(), True)
    assert secrecy.redact(b"quite another one") == b"quite another one"


def test_other_kinds_hold_no_secrets(secrecy: Secrecy) -> None:
    secrecy.hear(kinds.CONFIGMAP, secret("cm", token="not a secret at all"), False)
    assert secrecy.redact(b"not a secret at all") == b"not a secret at all"
