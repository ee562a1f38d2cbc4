"""Which addresses a guest may be connected to. Pure.

Judged is what the address leads to in the end: an IPv4 address inside an IPv6 one (mapped, compatible, 6to4, NAT64,
Teredo, ISATAP) counts like itself, because a router on the way unwraps it.
"""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Where clouds hand out the machine's own credentials to whoever asks from it.
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")
_SHARED = ipaddress.IPv4Network("100.64.0.0/10")
# Nobody's single host, whatever a rule says.
_NEVER = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "ff00::/8",
        "192.88.99.0/24",
        "100::/64",
        "3fff::/20",
        "192.0.2.0/24",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "2001:db8::/32",
    )
)


def refusal(text: str, *, private: bool, named: bool = False) -> str:
    """Why a connection to this address is refused, or "". `private`: a rule opens addresses of closed networks.
    `named`: the rule names this very address, which a metadata address needs besides."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return "something that is no address"
    if getattr(address, "scope_id", None):
        return "an address with a zone"
    return next((why for one in _all(address) if (why := _refusal(one, private, named))), "")


def _refusal(address: Address, private: bool, named: bool) -> str:
    if address in _METADATA:
        return "" if private and named else "a metadata service"
    if address.is_unspecified:
        return "the unspecified address"
    if address.is_loopback:
        return "" if private else "a loopback address"
    if any(address in network for network in _NEVER if network.version == address.version):
        return "a reserved or multicast address"
    if address.is_link_local:
        return "" if private else "a link-local address"
    if address in _SHARED or address in _SITE_LOCAL or address.is_private:
        return "" if private else "a private address"
    if address.is_reserved or address.is_multicast or not address.is_global:
        return "a reserved or multicast address"
    return ""


def _all(address: Address) -> list[Address]:
    """The address and every IPv4 address inside it. Where the wrapping is all there is, only what is inside."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    low = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.ipv4_mapped:
        return [address.ipv4_mapped]
    if address in _NAT64:
        return [low]
    if address in _COMPATIBLE and int(address) > 1:
        return [low, ipaddress.IPv6Address("::")]  # out of use since 2006: always refused
    inside: list[Address] = [address]
    if address.sixtofour:
        inside = [address.sixtofour]
    if address.teredo:
        inside = [*address.teredo, ipaddress.IPv6Address("::")]
    if address in _LOCAL_NAT64 or (int(address) >> 32) & 0xFDFFFFFF == 0x5EFE:
        inside.append(low)
    return inside
