"""The authority of a box: one box believes it, it is the same after a restart, and its keys are on no disk."""

import os
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from agentk.broker.egress_authority import SEED_BYTES, Authorities, seed, system_bundle


def shaken(server: ssl.SSLContext, believed: str, name: str) -> str:
    """The host a client is sure to speak with; raises what its handshake raises."""
    client_in, client_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cadata=believed)
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 does by itself
    context.set_alpn_protocols(["h2", "http/1.1"])
    client = context.wrap_bio(client_in, client_out, server_hostname=name)
    host = server.wrap_bio(client_out, client_in, server_side=True)
    for side in (client, host, client, host):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return str(client.selected_alpn_protocol())


@pytest.mark.parametrize(
    "host", ["api.example", "192.0.2.7", "2001:db8::7", "xn--bcher-kva.example", "a" * 60 + ".example"]
)
def test_a_box_believes_its_own_authority_for_the_host_and_no_other(host: str) -> None:
    boxes = Authorities(os.urandom(SEED_BYTES))
    assert shaken(boxes.context("u-1", host), boxes.certificate("u-1"), host) == "http/1.1"
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(boxes.context("u-1", host), boxes.certificate("u-1"), "other.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(boxes.context("u-2", host), boxes.certificate("u-1"), host)


def test_what_a_box_was_given_holds_after_a_restart_of_the_daemon() -> None:
    told = os.urandom(SEED_BYTES)
    given = Authorities(told).certificate("u-1")
    assert shaken(Authorities(told).context("u-1", "api.example"), given, "api.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(Authorities(os.urandom(SEED_BYTES)).context("u-1", "api.example"), given, "api.example")


def test_the_authority_signs_hosts_and_no_other_authority() -> None:
    certificate = x509.load_pem_x509_certificate(Authorities(bytes(32)).certificate("u-1").encode())
    limits = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (limits.ca, limits.path_length) == (True, 0)


def test_the_bundle_is_what_the_machine_believes_and_one_more() -> None:
    boxes = Authorities(bytes(32))
    assert boxes.bundle("u-1") == system_bundle() + boxes.certificate("u-1")
    assert "PRIVATE" not in boxes.bundle("u-1")
    assert boxes.bundle("u-1").count("BEGIN CERTIFICATE") == system_bundle().count("BEGIN CERTIFICATE") + 1


def test_the_seed_is_made_once_and_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "seed"
    first = seed(path)
    assert (len(first), seed(path), stat.S_IMODE(path.stat().st_mode)) == (SEED_BYTES, first, 0o600)
    assert [one.name for one in tmp_path.iterdir()] == ["seed"]
    path.write_bytes(b"short")
    with pytest.raises(OSError, match="damaged"):
        seed(path)


def test_two_that_make_the_seed_at_once_get_the_same(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from agentk.broker.egress_authority import seed; "
        "print(seed(pathlib.Path(sys.argv[1])).hex())"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "seed")], stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    assert len({one.communicate()[0] for one in started}) == 1
