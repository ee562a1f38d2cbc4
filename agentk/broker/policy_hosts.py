"""One spelling for every host, so that a rule and a connection mean the same one. Pure.

Must never let two spellings of one host differ (`Example.COM.`, `example.com`; `bücher.example`,
`xn--bcher-kva.example`; `::ffff:10.0.0.1`, `10.0.0.1`), nor one spelling mean two hosts: what resolvers disagree about
(`127.1`, `0x7f.1`, `010.0.0.1`, `straße.example`, zone ids) is refused. Whoever connects must connect to the text
returned here, not to what the guest wrote.
"""

import ipaddress
import re

from agentk.api import errors

_MAX_TEXT = 253  # letters of a name in DNS; Python's own codec is slow on long ones
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
_PATTERN = re.compile(r"[a-z0-9_.*?-]+")
_DOTS = str.maketrans("。．｡", "...")
# IDNA 2003 maps these away, IDNA 2008 keeps them: two hosts for one text.
_DISPUTED = frozenset("ßẞς\u200c\u200d")


def canonical(text: str) -> str:
    """A name in lower case and punycode without its trailing dot, or an address in its shortest form.

    Raises Invalid for what is neither, or is not the same host to everybody.
    """
    if not text or len(text) > _MAX_TEXT + 1:
        raise _bad(text, "a host name has 1 to 253 letters")
    if ":" in text or text.startswith("["):
        return _address_6(text)
    name = _ascii(text).removesuffix(".")
    labels = name.split(".")
    if len(name) > _MAX_TEXT or not all(_LABEL.fullmatch(label) for label in labels):
        raise _bad(text, "expected a host name such as api.example.com, without scheme, port and path")
    if _NUMBER.fullmatch(labels[-1]):  # a resolver takes it for an address
        try:
            return str(ipaddress.IPv4Address(name))
        except ValueError:
            raise _bad(text, "an address is written as four numbers, such as 192.0.2.1") from None
    return name


def pattern(text: str) -> str:
    """A glob over canonical hosts. Raises Invalid for one that does not say what its author means."""
    if "*" not in text and "?" not in text:
        return canonical(text)
    if len(text) > _MAX_TEXT:
        raise _bad(text, "a host glob has at most 253 letters")
    labels = text.translate(_DOTS).removesuffix(".").split(".")
    glob = ".".join(label.lower() if label.isascii() else _ascii(label) for label in labels)
    if not _PATTERN.fullmatch(glob) or "" in labels:
        raise _bad(text, "expected a host glob such as *.example.com, without scheme, port and path")
    # `10.*` looks like a network, and would match the name 10.evil.example.
    if re.fullmatch(r"[0-9.*?]*[0-9][0-9.*?]*", glob):
        hint = "private addresses are refused unless a rule allows the feature privateAddresses"
        raise _bad(text, "an address is written whole, without * and ?", hint)
    return glob


def _ascii(text: str) -> str:
    if text.isascii():
        return text.lower()
    if not _DISPUTED.isdisjoint(text):
        raise _bad(text, "it is another host to some resolvers", "write it in punycode: xn--…")
    try:
        return text.translate(_DOTS).encode("idna").decode().lower()
    except UnicodeError:
        raise _bad(text, "it is no internationalised host name") from None


def _address_6(text: str) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ipaddress.IPv6Address(bare)
    except ValueError:
        raise _bad(text, "expected a host without port, or an IPv6 address") from None
    if address.scope_id is not None:
        raise _bad(text, "an address with a zone means another host on every machine")
    return str(address.ipv4_mapped or address)


def _bad(text: str, why: str, hint: str = "") -> errors.Invalid:
    shown = text if len(text) <= 64 else text[:64] + "…"
    return errors.Invalid(f'host "{shown}": {why}', hint=hint)
