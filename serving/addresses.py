"""Which addresses belong to the public internet, and which a host's name has."""

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address

# IANA's special-purpose registries. Python's is_global depends on its version, and passes multicast, site-local and
# the addresses that carry another one (6to4, NAT64). Of IPv6 only 2000::/3 is given out to the public internet.
UNICAST_V6 = IPv6Network("2000::/3")
SPECIAL = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's platform, seen from its machines
        "169.254.0.0/16",  # link-local, with the clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)


def is_public(address: Address) -> bool:
    """Whether an address is an ordinary one of the public internet; one that carries another address never is."""
    if isinstance(address, IPv6Address) and (address.scope_id is not None or address not in UNICAST_V6):
        return False
    return address.is_global and not any(address in network for network in SPECIAL)


def addresses_of(host: str) -> list[str]:
    """The addresses of a host's name, as the system looks it up; takes seconds where a name server is slow."""
    return [str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
