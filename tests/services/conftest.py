"""A fixture that starts servers of services/ as real processes and leaves none behind."""

import pytest
from real_server import Server


@pytest.fixture
def start(tmp_path):
    """start(name, *options) gives a server that is ready; pytest shows what it logged if the test fails."""
    servers = []

    def start_server(name, *options, **how):
        server = Server(name, tmp_path / f"{name}-{len(servers)}.log", *options, **how)
        servers.append(server)
        return server

    yield start_server
    for server in servers:
        server.clean_up()
        print(f"--- what {server.name} logged:\n{server.log_text()[-4000:]}")
