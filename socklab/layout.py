"""What a play needs, before anything starts: its servers, hosts and networks, from a scenario and a compose file.

Scenario, Topology ──▶ Layout ── check ──▶ do they fit together?
                              ── lacks ──▶ what of it cannot be had on this backend, or in this lab: the play is skipped
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from socklab import faults
from socklab.backends import IMAGES, IPV6, LINKS, NETWORKS, PROGRAMS, Backend, Lab, Network, Node
from socklab.dialect import PLAIN
from socklab.hosts import host_of, networks_of
from socklab.language import FAULT_VERBS, LINK_VERBS, PROCESS_VERBS
from socklab.matching import DATAGRAM
from socklab.scenario import Scenario
from socklab.steps import Step
from socklab.topology import Topology, TopologyError

ECHOES = ("echo", "udp-echo")  # contracts: who speaks hears, and nobody else
GATES = "start the gates: docker compose --profile experiments up"


def check(scenario: Scenario, topology: Topology) -> None:
    """Whether a scenario and a compose file fit together. Raises ScenarioError or TopologyError, before anything starts."""
    Layout(scenario, topology).check()


def fault_of(step: Step) -> str:
    """The fault that a step puts on links."""
    return faults.CUT if step.verb in ("partition", "isolate") else step.verb


class Layout:
    """Who is where in a play. Servers are called as the scenario calls them, hosts as the compose file does."""

    def __init__(self, scenario: Scenario, topology: Topology, ipv6: bool = False) -> None:
        """`ipv6`: clients reach servers by IPv6. Raises TopologyError for a service that the compose file does not have."""
        self.scenario = scenario
        self.topology = topology
        self.services = {
            "server": topology.service(scenario.service).judged_as(scenario.contract),
            **{name: topology.service(name).judged_as(None) for name in scenario.services},
        }
        self.service = self.services["server"]
        self.framing = self.service.framing
        self.guest = self.service.guest
        self.dialect = self.guest.dialect if self.guest else PLAIN
        self.ipv6 = ipv6 or any(o.over == "ipv6" for step in scenario.walk() for _, o in step.connects)
        """Whether there is IPv6 in this lab; IPv4 always is."""
        self.hosts = {name: service.name for name, service in self.services.items()}
        """Client or server → the host it lives on. Clients beside one another share theirs."""
        self.nodes = {service.name: host_of(service, topology) for service in self.services.values()}
        for client in scenario.clients:
            beside = "server" if self.guest is not None and self.guest.loopback else client.beside
            self.hosts[client.name] = self.hosts[beside] if beside else client.name
            if beside is None:
                networks = client.networks or topology.client_networks or self.service.networks
                self.nodes[client.name] = Node(client.name, networks)
        self.names = {host: "server" if host == self.service.name else host for host in self.nodes}
        """What each host is called where packets are told."""

    @property
    def networks(self) -> list[Network]:
        """Those on which somebody is."""
        return networks_of(self.nodes.values(), self.topology, self.ipv6)

    def pairs(self, links: Iterable[tuple[str, str]]) -> list[faults.Pair]:
        """Links between clients and servers as links between hosts, each once."""
        return list(dict.fromkeys((self.hosts[a], self.hosts[b]) for a, b in links))

    def link_faults(self, steps: Iterable[Step]) -> Iterator[tuple[faults.Pair, str, Any]]:
        """Every link fault of these steps: on which link, which, and with what settings."""
        for step in steps:
            if step.verb in FAULT_VERBS:
                yield from ((pair, fault_of(step), step.fault) for pair in self.pairs(step.links))

    @cached_property
    def asks_the_wire(self) -> bool:
        return any(name == "wire" for step in self.scenario.walk() for name, _ in step.expects)

    # do they fit together?

    def check(self) -> None:
        """Raises ScenarioError and TopologyError for what does not fit together."""
        scenario, topology = self.scenario, self.topology
        self._check_links()
        self._check_loads()
        scenario.require_connections(datagrams=self.framing == DATAGRAM)
        for client in scenario.clients:
            for network in client.networks:
                if network not in topology.networks:
                    known = ", ".join(sorted(topology.networks))
                    raise TopologyError(
                        f'{scenario.path}: {client.name} is on network "{network}"; {topology.path.name} has {known}'
                    )
            if client.name in (self.service.name, *scenario.services):
                raise TopologyError(
                    f'{scenario.path}: the client "{client.name}" has the name of a service; choose another'
                )

    def _check_links(self) -> None:
        """Where two hosts have no network in common, there is no link on which a fault could be."""
        for step in self.scenario.walk():
            if step.verb in FAULT_VERBS and step.verb not in ("partition", "isolate"):
                for a, b in step.links:
                    if not set(self._networks_of(a)) & set(self._networks_of(b)):
                        raise TopologyError(
                            f"{self.scenario.path}:{step.line}: there is no link from {a} to {b}: they have no network in common"
                        )

    def _networks_of(self, who: str) -> tuple[str, ...]:
        return self.nodes[self.hosts[who]].networks

    def _check_loads(self) -> None:
        """What is asked of a crowd, and what this server's contract has."""
        server = self.service
        echo = server.contract in ECHOES
        for step in self.scenario.walk():
            at = f"{self.scenario.path}:{step.line}"
            for name, load in step.loads:
                if echo and load.senders > 1:
                    raise TopologyError(
                        f"{at}: senders are of a chat or a registry; to {server.name} all of {name} speak"
                    )
                if not echo and load.in_flight > 1:
                    raise TopologyError(
                        f"{at}: in-flight is of an echo; {server.name} brings what is said to all"
                    )
            inside = [entry for inner in step.walk() for entry in inner.loads]
            if not echo and len(inside) > 1 and step.verb in ("load", "together"):
                raise TopologyError(
                    f"{at}: {inside[0][0]} and {inside[1][0]} would hear each other's lines; let one load at a time be at {server.name}"
                )

    # what cannot be had

    def lacks(self, backend: Backend) -> str:
        """What the scenario needs and this backend does not have, with the remedy; or nothing."""
        can, name = backend.can, backend.name
        verbs = {step.verb for step in self.scenario.walk()}
        if NETWORKS not in can and any(client.networks for client in self.scenario.clients):
            return f"needs networks of its own, and the backend {name} has none: play it --on netns"
        if PROGRAMS not in can and (reason := self._lacks_programs(verbs)):
            return reason
        link_verbs = ", ".join(sorted(verbs & set(LINK_VERBS)))
        if self.guest is not None and self.guest.loopback:
            if link_verbs:
                return f"needs link faults ({link_verbs}), and with --loopback there is no link"
            if self.asks_the_wire:
                return "needs to see the wire, and with --loopback there is none"
        if LINKS not in can and link_verbs:
            return f"needs link faults ({link_verbs}), and the backend {name} has none: play it --on netns"
        if self.ipv6 and IPV6 not in can:
            return f"needs networks with IPv6, and the backend {name} has none: play it --on netns"
        if LINKS not in can and self.asks_the_wire:
            return f"needs to see the wire, and the backend {name} has none: play it --on netns"
        return self._lacks_words() or self._lacks_commands(can)

    def _lacks_programs(self, verbs: set[str]) -> str:
        """Where servers are neither started nor ended, nor looked into."""
        needed = verbs & set(PROCESS_VERBS)
        asked = any(who in self.services for step in self.scenario.walk() for who, _ in step.expects)
        if self.guest is not None:
            if self.scenario.fresh or asked or needed or "sockets" in verbs:
                return "needs to start the server, or to look into it, and this one runs already: give its command instead of its address"
            return ""
        if self.scenario.fresh:
            return "needs a server that nobody used before, and these servers serve one play after another: play it --on docker, on the host"
        if needed:
            return f"needs a server that can be started and ended ({', '.join(sorted(needed))}), and these servers run in containers that are not ours: play it --on docker, on the host"
        if asked:
            return "reads the server's log or exit status, and its container is not ours: play it --on docker, on the host"
        return ""

    def _lacks_words(self) -> str:
        """What is said in the scenario and cannot be in the server's dialect."""
        payloads = [p for step in self.scenario.walk() for _, each in step.sends for p in each]
        return self.dialect.lacks(
            raw=any(p.text is None for p in payloads),
            cut=any(p.pieces for p in payloads),
            quits=any(p.text is None and re.search(rb"(?m)^quit\r?$", p.raw) for p in payloads),
            longest=max((len(p.text.encode()) * p.repeat for p in payloads if p.text is not None), default=0),
        )

    def _lacks_commands(self, can: frozenset[str]) -> str:
        """A server that cannot be started there, or not be reached."""
        for service in self.services.values():
            if self.guest is not None and self.guest.at is not None:
                continue
            if not service.command and IMAGES not in can:
                return f'service "{service.name}" has no command in {self.topology.path.name}: its image brings it: play it --on docker'
            if service.protocol == "unix" and any(
                self.hosts[c.name] != self.hosts["server"] for c in self.scenario.clients
            ):
                return f"{service.name} listens on an AF_UNIX socket, which only programs on its own host reach: give each client beside: server"
        return ""

    def lacks_here(self, lab: Lab) -> str:
        """What needs rules, or a client, on a node of this lab on which nothing can be run; or nothing."""
        for client in self.scenario.clients:
            if not lab.reachable(self.hosts[client.name]):
                return f"needs {client.name} on the server's own host, where its gate is; {GATES}"
        for step in self.scenario.walk():
            faulty = self.pairs(step.links) if step.verb in FAULT_VERBS else []
            if self.asks_the_wire and any(not lab.reachable(receiver) for _, receiver in faulty):
                # What is cut towards such a server is gone before a capture sees it.
                return f"looks at the wire to a server that is cut off, where its gate does that; {GATES}"
            asked = [self.hosts[who] for who, _, _ in step.sockets]
            if any(not lab.reachable(host) for host in asked):
                return f"asks the kernel of a server, which its gate does; {GATES}"
            if step.verb in ("unplug", "plug") and any(not lab.reachable(self.hosts[n]) for n in step.names):
                return f"needs to unplug a server, which its gate does; {GATES}"
        return ""
