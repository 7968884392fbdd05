"""From a compose file to what a backend makes: the host of a service, and the networks of a lab."""

from __future__ import annotations

from collections.abc import Iterable

from socklab.backends import Network, Node
from socklab.topology import Service, Topology


def host_of(service: Service, topology: Topology) -> Node:
    """Where a service runs: under its own name, on its own networks."""
    return Node(service.name, service.networks, service.aliases, topology.path.resolve())


def networks_of(nodes: Iterable[Node], topology: Topology, ipv6: bool = False) -> list[Network]:
    """Those on which these nodes are, in the order of the compose file. `ipv6`: they have such addresses, too."""
    used = {network for node in nodes for network in node.networks}
    return [Network(name, internal, ipv6) for name, internal in topology.networks.items() if name in used]
