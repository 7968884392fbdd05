"""The `outside` backend: clients of ours, and one server that runs already, somewhere else, in somebody else's hands."""

from __future__ import annotations

from collections.abc import Sequence

from socklab.backends import Network, Node
from socklab.backends.process import Process, ProcessLab


class Outside(Process):
    """socklab.backends.Backend: nothing of the server can be started, ended, or read."""

    name = "outside"
    can = frozenset()

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address
        self._local = address.startswith("127.")

    async def lab(self, networks: Sequence[Network], nodes: Sequence[Node]) -> ProcessLab:
        lab = await super().lab(networks, nodes)
        theirs, ours = self._address, None if self._local else "0.0.0.0"  # what the kernel takes to get there
        lab.addresses = {
            node.name: [("outside", theirs if node.compose else ours or lab.address(node.name))]
            for node in nodes
        }
        return lab
