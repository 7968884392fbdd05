"""What every backend owes the conductor: one contract, both embedded backends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from socklab.backends import NETWORKS, Backend, CannotStart, Lab, LabError, Network, Node
from tests.backends.conftest import LAB, TWO, Run

ENV = {"PATH": os.environ["PATH"]}
LISTEN = """
import socket, sys, time
s = socket.create_server((sys.argv[1], 5000), backlog=8)
print("listening", flush=True)
time.sleep(60)
"""


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


async def spawn(
    lab: Lab, code: str, *arguments: str, node: str = "server"
) -> tuple[Any, list[tuple[str, bytes]]]:
    """A Python program on a node, and the lines that it prints."""
    lines: list[tuple[str, bytes]] = []
    argv = [sys.executable, "-c", code, *arguments]
    program = await lab.spawn(
        node, argv, env=ENV, cwd="/", on_line=lambda stream, line, t: lines.append((stream, line))
    )
    return program, lines


def test_what_a_program_prints_comes_line_by_line(run: Run) -> None:
    """Both streams, the last line without its newline too, and then the exit status."""

    async def body(backend: Backend) -> None:
        lab = await backend.lab(LAB, TWO)
        program, lines = await spawn(
            lab, "import sys; print('one'); print('two', end=''); print('oops', file=sys.stderr); sys.exit(7)"
        )

        assert await program.exited == 7
        assert [line for stream, line in lines if stream == "stdout"] == [b"one", b"two"]
        assert [line for stream, line in lines if stream == "stderr"] == [b"oops"]

    run(body)


def test_a_flood_of_output_is_handed_on_whole(run: Run) -> None:
    """Longer than any pipe, with a line longer than is kept in one piece."""

    async def body(backend: Backend) -> None:
        lab = await backend.lab(LAB, TWO)
        program, lines = await spawn(lab, "print('\\n'.join(map(str, range(100000)))); print('x' * 200000)")

        assert await program.exited == 0
        assert [line for _, line in lines[:100000]] == [str(n).encode() for n in range(100000)]
        assert b"".join(line for _, line in lines[100000:]) == b"x" * 200000

    run(body)


def test_a_program_that_is_not_there_is_named(run: Run) -> None:
    """No such program, no right to run it, no such folder: CannotStart with the reason, and the lab goes on."""

    async def body(backend: Backend) -> None:
        lab = await backend.lab(LAB, TWO)
        for argv, cwd, words in (
            (["no-such-program"], "/", "no-such-program: no such program on the PATH"),
            (["./no-such"], "/", "./no-such: no such program"),
            (["/etc/hostname"], "/", "/etc/hostname: cannot start"),
            (["true"], "/no/such/folder", "folder /no/such/folder"),
        ):
            with pytest.raises(CannotStart, match=words):
                await lab.spawn("server", argv, env=ENV, cwd=cwd)
        program, _ = await spawn(lab, "pass")
        assert await program.exited == 0

    run(body)


def test_its_pid_is_ours_to_look_at(run: Run) -> None:
    """/proc/PID is the program, whatever PID namespace it lives in."""

    async def body(backend: Backend) -> None:
        lab = await backend.lab(LAB, TWO)
        program, _ = await spawn(lab, "import time; time.sleep(60)")

        assert b"time.sleep(60)" in Path(f"/proc/{program.pid}/cmdline").read_bytes()

    run(body)


def test_signals_reach_the_process_or_its_group(run: Run) -> None:
    """SIGTERM to the main process; SIGKILL to all that it started."""

    async def body(backend: Backend) -> None:
        lab = await backend.lab(LAB, TWO)
        program, _ = await spawn(lab, "import time; time.sleep(60)")
        await lab.signal(program, signal.SIGTERM)
        assert await program.exited == -signal.SIGTERM
        await lab.signal(program, signal.SIGTERM)  # ended already: nothing happens

        program, lines = await spawn(
            lab, "import os, time; os.fork(); print(os.getpid(), flush=True); time.sleep(60)"
        )
        while len(lines) < 2:
            await asyncio.sleep(0.005)
        await lab.signal(program, signal.SIGKILL, group=True)
        assert await program.exited == -signal.SIGKILL

    run(body)


def test_with_its_main_process_all_of_a_program_ends(run: Run) -> None:
    """As in a container: a child that was left behind in its group is killed, and nobody waits for its pipe."""

    async def body(backend: Backend) -> None:
        lab = await backend.lab(LAB, TWO)
        code = "import os, time\nif os.fork() == 0: time.sleep(60)\nprint('parent ends')"
        program, lines = await spawn(lab, code)

        assert await program.exited == 0
        assert lines == [("stdout", b"parent ends")]

    run(body)


def test_stop_leaves_no_process(run: Run) -> None:
    """Also those that made sessions of their own and those that ignore SIGTERM."""

    async def body(backend: Backend) -> None:
        lab = await backend.lab(LAB, TWO)
        code = "import os, signal, time\nsignal.signal(15, signal.SIG_IGN)\nif os.fork() == 0: os.setsid(); os.fork()\nprint(flush=True)\ntime.sleep(60)"
        program, lines = await spawn(lab, code)
        while len(lines) < 3:
            await asyncio.sleep(0.005)
        keeper = _lab_process(program.pid)
        everything = _descendants(keeper)
        assert len(everything) >= 3

        await lab.stop()
        await lab.stop()

        assert [pid for pid in [keeper, *everything] if alive(pid)] == []

    run(body)


def _lab_process(pid: int) -> int:
    return int(
        next(
            line.split()[1]
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("PPid")
        )
    )


def _descendants(pid: int) -> list[int]:
    try:
        children = [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return children + [d for child in children for d in _descendants(child)]


def test_the_kernels_table_shows_who_listens_and_who_waits(run: Run) -> None:
    """LISTEN appears without anybody connecting; connections that nobody accepts are counted."""

    async def body(backend: Backend) -> None:
        lab = await backend.lab(LAB, TWO)
        address = lab.address("server")
        _, lines = await spawn(lab, LISTEN, address)
        while not lines:
            await asyncio.sleep(0.005)
        assert [
            (row.local, row.rx_queue) for row in (await lab.sockets("server")).listening("tcp", 5000)
        ] == [(address, 0)]

        await spawn(
            lab,
            f"import socket, time\ns = socket.create_connection(({address!r}, 5000))\ntime.sleep(60)",
            node="alice",
        )
        for _ in range(1000):
            if (await lab.sockets("server")).listening("tcp", 5000)[0].rx_queue:
                break
            await asyncio.sleep(0.005)
        assert (await lab.sockets("server")).listening("tcp", 5000)[0].rx_queue == 1

    run(body)


def test_agents_on_two_nodes_talk(run: Run) -> None:
    """An agent speaks its protocol on the socket, and its connection reaches a server on another node."""

    async def body(backend: Backend) -> None:
        lab = await backend.lab(LAB, TWO)
        address = lab.address("server")
        _, lines = await spawn(lab, LISTEN, address)
        while not lines:
            await asyncio.sleep(0.005)
        stream = await lab.inside("alice", "agent")
        stream.setblocking(True)
        stream.settimeout(10)
        with stream.makefile("rw") as lines_of_agent:
            assert json.loads(lines_of_agent.readline())["event"] == "hello"
            lines_of_agent.write(
                json.dumps({"id": 1, "do": "open", "client": "alice", "kind": "tcp", "to": [address, 5000]})
                + "\n"
            )
            lines_of_agent.flush()
            answer = json.loads(lines_of_agent.readline())
        stream.close()

        assert answer["ok"]
        if NETWORKS in lab.can:
            assert answer["local"][0] == lab.address("alice")

    run(body)


def test_an_agent_survives_a_peer_that_is_gone(run: Run) -> None:
    """Sending to it is an error that is told, and no SIGPIPE ends the agent."""

    async def body(backend: Backend) -> None:
        lab = await backend.lab(LAB, TWO)
        address = lab.address("server")
        code = f"import socket\ns = socket.create_server(({address!r}, 5000))\nprint(flush=True)\nc, _ = s.accept()\nc.close()"
        program, lines = await spawn(lab, code)
        while not lines:
            await asyncio.sleep(0.005)
        stream = await lab.inside("alice", "agent")
        stream.settimeout(10)
        with stream.makefile("rw") as spoken:
            spoken.readline()
            say = {"id": 1, "do": "open", "client": "alice", "kind": "tcp", "to": [address, 5000]}
            spoken.write(json.dumps(say) + "\n")
            spoken.flush()
            await program.exited
            for number in range(2, 10):
                say = {
                    "id": number,
                    "do": "send",
                    "client": "alice",
                    "chunks": [{"text": "x" * 100_000}],
                    "limit": 0.1,
                }
                spoken.write(json.dumps(say) + "\n")
                spoken.flush()
            answers = [json.loads(spoken.readline()) for _ in range(9)]
        stream.close()
        assert any(a.get("ok") is False for a in answers)

    run(body)


def test_a_command_is_run_inside_a_nodes_network(run: Run) -> None:
    async def body(backend: Backend) -> None:
        lab = await backend.lab(LAB, TWO)
        done = await lab.run("alice", ["cat"], "to be read\n" * 20000)
        assert done.status == 0
        assert done.stdout.count("to be read") == 20000
        failed = await lab.run("alice", ["sh", "-c", "echo no >&2; exit 3"])
        assert (failed.status, failed.stderr) == (3, "no")
        with pytest.raises(CannotStart):
            await lab.run("alice", ["no-such-command"])
        with pytest.raises(LabError, match=r"has not ended within 0\.1s"):
            await lab.run("alice", ["sleep", "60"], limit=0.1)

    run(body)


def test_two_labs_at_once_never_meet(run: Run) -> None:
    """The same address and port in both: each finds its own server, or none."""

    async def body(backend: Backend) -> None:
        labs = [await backend.lab(LAB, TWO) for _ in range(2)]
        for lab in labs:
            _, lines = await spawn(lab, LISTEN, lab.address("server"))
            while not lines:
                await asyncio.sleep(0.005)
        addresses = {lab.address("server") for lab in labs}
        assert NETWORKS in labs[0].can or len(addresses) == 2
        await labs[0].stop()
        program, _ = await spawn(
            labs[1],
            f"import socket; socket.create_connection(({labs[1].address('server')!r}, 5000))",
            node="alice",
        )
        assert await program.exited == 0

    run(body)


def test_three_hundred_nodes(run: Run) -> None:
    """A class of eighty, four nodes each, and some."""

    async def body(backend: Backend) -> None:
        nodes = [Node(f"n{number}", ("lab",)) for number in range(300)]
        lab = await backend.lab(LAB, nodes)

        assert len({lab.address(node.name) for node in nodes}) == 300
        program, _ = await spawn(lab, "pass", node="n299")
        assert await program.exited == 0

    run(body)


def test_a_start_that_is_cancelled_leaves_nothing(run: Run) -> None:
    """Whatever the moment: afterwards the next lab is made as if nothing had been."""

    async def body(backend: Backend) -> None:
        await (await backend.lab(LAB, TWO)).stop()
        before = len(os.listdir("/proc/self/fd"))
        for turns in range(12):
            task = asyncio.ensure_future(backend.lab(LAB, TWO))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            try:
                await (await task).stop()
            except asyncio.CancelledError:
                pass
        lab = await backend.lab(LAB, TWO)
        await lab.stop()

        assert len(os.listdir("/proc/self/fd")) <= before

    run(body)


def test_many_labs_one_after_another_leave_no_descriptor(run: Run) -> None:
    async def body(backend: Backend) -> None:
        async def one() -> None:
            lab = await backend.lab(LAB, TWO)
            stream = await lab.inside("alice", "agent")
            program, _ = await spawn(lab, "pass")
            await program.exited
            stream.close()
            await lab.stop()

        await one()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            await one()

        assert len(os.listdir("/proc/self/fd")) == before

    run(body)


def test_a_killed_keeper_is_told_at_once(run: Run) -> None:
    """Somebody killed it: whoever waits hears of it, and nothing hangs."""

    async def body(backend: Any) -> None:
        lab = await backend.lab(LAB, TWO)
        program, _ = await spawn(lab, "import time; time.sleep(60)")
        backend._keeper._process.kill()

        assert await program.exited == -signal.SIGKILL
        with pytest.raises(LabError, match="killed"):
            await spawn(lab, "pass")
        await lab.stop()

    run(body)


class TestNetns:
    """What only network namespaces can do."""

    @pytest.fixture(autouse=True)
    def _works(self, why_no_netns: str | None) -> None:
        if why_no_netns:
            pytest.skip(why_no_netns)

    @pytest.fixture(params=["netns"])
    def run(self, request: pytest.FixtureRequest, why_no_netns: str | None) -> Run:
        from socklab.backends.netns import Netns

        def runner(body: Any) -> Any:
            async def whole() -> Any:
                backend = Netns()
                try:
                    async with asyncio.timeout(60):
                        return await body(backend)
                finally:
                    await backend.close()

            return asyncio.run(whole())

        return runner

    def test_nodes_find_each_other_by_name(self, run: Run) -> None:
        """Those on a common network, by name and alias; others, and the world, fail at once."""

        async def body(backend: Backend) -> None:
            nodes = [Node("server", ("a", "b"), ("www",)), Node("alice", ("a",)), Node("bob", ("b",))]
            lab = await backend.lab([Network("a"), Network("b")], nodes)
            code = "import socket, sys\nfor n in sys.argv[1:]:\n try: print(n, socket.gethostbyname(n))\n except OSError: print(n, '-')\nprint(socket.gethostname())"
            program, lines = await spawn(
                lab, code, "server", "www", "alice", "bob", "example.org", node="bob"
            )
            await program.exited

            there = lab.address("server", "b")
            expected = [
                f"server {there}",
                f"www {there}",
                "alice -",
                f"bob {lab.address('bob')}",
                "example.org -",
                "bob",
            ]
            assert [line.decode() for _, line in lines] == expected

        run(body)

    def test_networks_are_apart(self, run: Run) -> None:
        """A node on both does not forward; the other network is unreachable at once."""

        async def body(backend: Backend) -> None:
            nodes = [Node("server", ("a", "b")), Node("alice", ("a",)), Node("bob", ("b",))]
            lab = await backend.lab([Network("a"), Network("b")], nodes)
            code = f"import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ntry: s.sendto(b'x', ({lab.address('bob')!r}, 9))\nexcept OSError as e: print(e.errno)"
            program, lines = await spawn(lab, code, node="alice")
            await program.exited

            assert lines == [("stdout", b"101")]  # ENETUNREACH

        run(body)

    def test_the_machines_own_network_is_untouched(self, run: Run) -> None:
        """No interface, route or name appears where the conductor lives."""

        def here() -> tuple[Any, ...]:
            names = sorted(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else []
            return (
                socket.if_nameindex(),
                Path("/proc/net/route").read_text(),
                names,
                Path("/proc/self/mounts").read_text(),
            )

        async def body(backend: Backend) -> None:
            before = here()
            lab = await backend.lab(LAB, TWO)
            assert here() == before
            await lab.stop()
            assert here() == before

        run(body)
