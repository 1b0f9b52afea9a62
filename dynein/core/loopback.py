"""Which host names and addresses mean this machine."""

from __future__ import annotations

import ipaddress


def is_address(host: str) -> bool:
    """Is it an IP address, rather than a name?"""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback_name(name: str) -> bool:
    """Does a name, in lower case, mean this machine whatever a name server says (RFC 6761, 6.3)?"""
    return name == "localhost" or name.endswith(".localhost")


def is_loopback(host: str | None) -> bool:
    """Is ``host`` (a name or an address, IPv6 without brackets) this machine whatever a name server says?

    ``localhost`` and the names below it (RFC 6761), the loopback networks, and the unspecified addresses ``0.0.0.0``
    and ``::``, to which a connection ends up on this machine too.
    """
    if not host:
        return False
    name = host.rstrip(".").lower()
    if is_loopback_name(name):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified
