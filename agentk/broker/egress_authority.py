"""A certificate authority for each box, which only that box believes: with it the gate ends a tunnel's TLS.

Keys never touch a disk and never enter a jail. A box outlives the daemon, so the key of its authority is made again
from one seed of the installation and the box's id; whoever knows no seed can make none. What is signed is for one host
that the agent's own spec names, and lives for days.
"""

import contextlib
import functools
import hashlib
import ipaddress
import os
import ssl
from collections import OrderedDict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import ExtendedKeyUsageOID

from agentk.api.errors import Invalid

SEED_BYTES = 32
# The order of P-256 (FIPS 186-4, D.1.2.3): a private key is a number from 1 to one less.
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_CURVE = ec.SECP256R1()
_SKEW = timedelta(days=1)  # a box's clock is the host's, but clients round
_AUTHORITY_LIVES = timedelta(days=3650)
_LEAF_LIVES = timedelta(days=7)
_LEAF_RENEWED = timedelta(days=1)  # before its end
_HOSTS_KEPT = 64  # of one box
_BOXES_KEPT = 1024
_SYSTEM = (  # where distributions keep what they believe
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def seed(path: Path) -> bytes:
    """The installation's seed: made at the first call, 0600, and the same ever after."""
    with contextlib.suppress(FileNotFoundError):
        return _whole(path)
    made = path.with_name(f"{path.name}.{os.getpid()}")
    fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, os.urandom(SEED_BYTES))
        os.fsync(fd)
    finally:
        os.close(fd)
    try:
        os.link(made, path)  # never over one that is there
    except FileExistsError:
        pass
    finally:
        made.unlink()
    return _whole(path)


class Authorities:
    """Of every box; for one thread."""

    def __init__(self, seed: bytes, believed: str = "") -> None:
        """`believed`: PEM of other authorities that boxes are told of."""
        self._seed, self._believed = seed, believed
        self._boxes: OrderedDict[str, _Authority] = OrderedDict()

    def bundle(self, box_id: str) -> str:
        """PEM: what the machine believes, and the box's authority. For a file in its jail."""
        return system_bundle() + self._believed + self._of(box_id).pem

    def certificate(self, box_id: str) -> str:
        """PEM of the box's authority alone."""
        return self._of(box_id).pem

    def context(self, box_id: str, host: str) -> ssl.SSLContext:
        """What to speak TLS with, as this host (canonical). One a call: its callbacks are the caller's."""
        return self._of(box_id).context(host)

    def _of(self, box_id: str) -> "_Authority":
        found = self._boxes.pop(box_id, None) or _Authority(_key(self._seed, box_id), box_id)
        self._boxes[box_id] = found
        if len(self._boxes) > _BOXES_KEPT:
            self._boxes.popitem(last=False)
        return found


class _Authority:
    def __init__(self, key: ec.EllipticCurvePrivateKey, box_id: str) -> None:
        self._key = key
        self._name = _name(f"agentk {box_id}")
        self._leaf_key = ec.generate_private_key(_CURVE)
        self._leaves: OrderedDict[str, tuple[datetime, bytes]] = OrderedDict()
        self._own_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        self._certificate = self._itself()
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def context(self, host: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        with _in_memory(self._chain(host)) as path:
            context.load_cert_chain(path)
        return context

    def _chain(self, host: str) -> bytes:
        now = datetime.now(UTC)
        until, chain = self._leaves.pop(host, (now, b""))
        if until - now < _LEAF_RENEWED:
            until = now + _LEAF_LIVES
            key = self._leaf_key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            chain = key + self._leaf(host, now - _SKEW, until).public_bytes(serialization.Encoding.PEM)
        self._leaves[host] = (until, chain)
        if len(self._leaves) > _HOSTS_KEPT:
            self._leaves.popitem(last=False)
        return chain

    def _itself(self) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            self._signed(self._name, self._key.public_key(), now - _SKEW, now + _AUTHORITY_LIVES)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(self._own_id, critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _leaf(self, host: str, since: datetime, until: datetime) -> x509.Certificate:
        public = self._leaf_key.public_key()
        named = _alternative(host)
        # A common name has at most 64 letters, and nobody reads it any more.
        return (
            self._signed(_name(host[:64]), public, since, until)
            .add_extension(x509.SubjectAlternativeName([named]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._own_id), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, since: datetime, until: datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(since)
            .not_valid_after(until)
        )


def believing(pem: str = "") -> ssl.SSLContext:
    """For connections to hosts: believes what this machine does, and these. Raises Invalid for what is no PEM."""
    context = ssl.create_default_context()
    if pem:
        try:
            context.load_verify_locations(cadata=pem)
        except ssl.SSLError:
            raise Invalid("there is no certificate in it that can be read") from None
    return context


@functools.cache
def system_bundle() -> str:
    """What this machine believes, read once; nothing where it keeps none."""
    for path in (os.environ.get("SSL_CERT_FILE", ""), *_SYSTEM):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if path:
                return Path(path).read_text().rstrip() + "\n"
    return ""


def _key(seed: bytes, box_id: str) -> ec.EllipticCurvePrivateKey:
    """Always the same for the same box. Longer than the order by 16 bytes, so that no number is likelier."""
    told = HKDF(hashes.SHA256(), 48, hashlib.sha256(b"agentk").digest(), box_id.encode()).derive(seed)
    return ec.derive_private_key(int.from_bytes(told, "big") % (_ORDER - 1) + 1, _CURVE)


def _whole(path: Path) -> bytes:
    data = path.read_bytes()
    if len(data) != SEED_BYTES:
        raise OSError(f"{path} is damaged: it has {len(data)} bytes and should have {SEED_BYTES}")
    return data


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text[:64])])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


@contextlib.contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """A path to bytes that are on no disk: the ssl module takes keys from files only."""
    fd = os.memfd_create("agentk", os.MFD_CLOEXEC)
    try:
        os.write(fd, data)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
