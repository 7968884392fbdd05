"""The keeper: the process between the conductor and all that it starts. Standard library only; started as a program.

    conductor ── keeper ─┬─ lab 1 ─┬─ server
                         │         └─ agent (a fork of the keeper, which has read clients/agent.py once)
                         └─ lab 2 …

Each lab is a process that owns everything in it. When the conductor goes, however it goes, its end of the control socket
closes, the lab ends, and all that is the lab's ends with it: in `netns` because the lab is PID 1 of its own PID namespace, in
`process` because orphans come back to it (PR_SET_CHILD_SUBREAPER) and it ends them. Namespaces are held by descriptors of the lab
and by processes in it, never by names, so the kernel removes them with the last of these.

Messages are JSON in SOCK_SEQPACKET packets, descriptors come beside them (unix(7), SCM_RIGHTS).
"""

from __future__ import annotations

import array
import contextlib
import errno
import importlib.util
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import linux
from rtnetlink import Links

sys.path.pop(0)

PACKET = 1 << 20
LINK_LIMIT = 20  # seconds; a second is the most that was seen
_NETLINK_SOCK_DIAG = 4
_TABLES = ("tcp", "tcp6", "udp", "udp6", "unix")
_RESET: tuple[signal.Signals, ...] = (
    signal.SIGPIPE,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGCHLD,
    signal.SIGXFSZ,
)


def receive(control: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message and its descriptors; None at the end, also of a peer that was killed and had not read all that it was told."""
    try:
        data, ancillary, _, _ = control.recvmsg(PACKET, socket.CMSG_SPACE(64 * 4))
    except ConnectionResetError:
        return None, []
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return (json.loads(data) if data else None), list(descriptors)


def send(control: socket.socket, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    control.sendmsg([json.dumps(message).encode()], rights)


class Keeper:
    """Forks a process for each lab, and reaps it."""

    def __init__(self, control: socket.socket, agent_file: str) -> None:
        self.control = control
        spec = importlib.util.spec_from_file_location("agent", agent_file)
        assert spec is not None
        assert spec.loader is not None
        self.agent = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.agent)
        self.labs: dict[int, int] = {}

    def run(self) -> None:
        wake = _wake_on_child()
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(wake, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == wake.fileno():
                    _drain(wake)
                    self.reap()
                else:
                    message, descriptors = receive(self.control)
                    if message is None:
                        while self.labs:  # they see the same on their own sockets, and must not die of our end before theirs
                            self.labs.pop(os.wait()[0], None)
                        return
                    self.fork_lab(message, socket.socket(fileno=descriptors[0]))

    def fork_lab(self, message: dict[str, Any], control: socket.socket) -> None:
        keeper = os.getpid()
        child = os.fork()
        if child:
            control.close()
            self.labs[child] = message["lab"]
            for name in ("capture", "gate"):
                ours(name)  # while the lab is being laid out: they may soon be wanted
            return
        try:
            self.control.close()
            _die_with(keeper)
            lab = Lab(control, self.agent, message)
            try:
                lab.run()
            finally:
                lab.end()  # also when the conductor's end broke in the middle of a message
        except BaseException as exc:
            _give_up(control, exc)
        finally:
            os._exit(0)

    def reap(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self.labs:
                send(self.control, {"gone": self.labs.pop(pid)})


def ours(name: str) -> Any:
    """One of the programs in inside/, read once; their parts find one another as a package."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if root not in sys.path:
        sys.path.append(root)
    return importlib.import_module(f"socklab.inside.{name}")


def _give_up(control: socket.socket, exc: BaseException) -> None:
    number = exc.errno if isinstance(exc, OSError) else None
    text = exc.strerror if isinstance(exc, OSError) else f"{type(exc).__name__}: {exc}"
    try:
        send(control, {"broken": text, "errno": number})
    except OSError:
        pass  # nobody is there to hear it


class Lab:
    """One lab: its nodes, and every process on them."""

    def __init__(self, control: socket.socket, agent: Any, message: dict[str, Any]) -> None:
        self.control = control
        self.agent = agent
        self.isolated = message["kind"] == "netns"
        self.message = message
        self.namespaces: dict[str, int] = {}
        self.switch = -1  # the network namespace of the bridges
        self.ports: dict[str, tuple[str, str]] = {}  # port of a bridge → node and device at its other end
        self.hosts: dict[str, str] = {}  # node → its hosts file
        self.programs: dict[int, int] = {}
        self.tables_sent: set[str] = set()
        self.scratch = ""

    def run(self) -> None:
        if self.isolated:
            self.isolate()
            self.lay_out()
        else:
            linux.adopt_orphans()
            self.namespaces = dict.fromkeys((node["name"] for node in self.message["nodes"]), -1)
        wake = _wake_on_child()
        send(self.control, {"up": True})
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(wake, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == wake.fileno():
                    _drain(wake)
                    self.reap()
                    continue
                message, descriptors = receive(self.control)
                if message is None or message["do"] == "stop":
                    self.end()
                    return
                try:
                    self.start(message, descriptors)
                finally:
                    for each in descriptors:
                        os.close(each)

    # namespaces

    def isolate(self) -> None:
        """Become PID 1 of new namespaces; without root by way of a user namespace, in which we are root."""
        flags = (
            linux.CLONE_NEWNS
            | linux.CLONE_NEWNET
            | linux.CLONE_NEWPID
            | linux.CLONE_NEWUTS
            | linux.CLONE_NEWIPC
        )
        user, group = os.geteuid(), os.getegid()
        if user == 0:
            linux.unshare(flags)
        else:
            linux.unshare(flags | linux.CLONE_NEWUSER)
            # user_namespaces(7): one user and one group, ourselves, and setgroups(2) given up for it.
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", f"0 {user} 1")
            _write("/proc/self/gid_map", f"0 {group} 1")
        linux.die_with_parent()  # a change of credentials cleared it
        first = os.fork()
        if first:
            self.control.close()
            os.waitpid(first, 0)
            os._exit(0)
        linux.die_with_parent()
        linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
        try:
            linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
        except OSError:
            pass  # some containers mask parts of /proc, and then a new one is refused; the old one serves too

    def lay_out(self) -> None:
        """A bridge for each network in our own network namespace, and a namespace for each node."""
        switch = self.switch = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _settle_ipv6()
        bridges = Links()
        index: dict[str, int] = {}
        bridges.up(1)  # lo
        for number, network in enumerate(self.message["networks"]):
            bridges.add_bridge(f"br{number}")
            index[network] = socket.if_nametoindex(f"br{number}")
            bridges.up(index[network])
        ports: list[tuple[str, str]] = []
        ends: list[tuple[Links, int]] = []
        for node in self.message["nodes"]:
            linux.unshare(linux.CLONE_NEWNET)
            self.namespaces[node["name"]] = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            _settle_ipv6()
            links = Links()
            links.up(1)
            for number, (network, *addresses) in enumerate(node["addresses"]):
                port = f"p{len(ports)}"
                links.add_veth(f"eth{number}", port, switch)
                device = socket.if_nametoindex(f"eth{number}")
                for address in addresses:
                    links.add_address(device, address)
                links.up(device)
                ports.append((port, network))
                self.ports[port] = (node["name"], f"eth{number}")
                ends.append((links, device))
        linux.setns(switch, linux.CLONE_NEWNET)
        for port, network in ports:
            device = socket.if_nametoindex(port)
            bridges.enslave(device, index[network])
            ends.append((bridges, device))
        _wait_until_up(ends)
        for links in {id(links): links for links, _ in ends}.values():
            links.close()
        bridges.close()
        self.write_hosts()

    def write_hosts(self) -> None:
        """A hosts file for each node, in memory, below a folder that is empty anyway and that only this lab sees."""
        self.scratch = next(
            (d for d in ("/srv", "/media", "/mnt") if os.path.isdir(d) and not os.listdir(d)), "/media"
        )
        linux.mount("tmpfs", self.scratch, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755")
        files: dict[tuple[str, ...], str] = {}
        for node in self.message["nodes"]:
            # Nodes on the same networks see the same names, so they share one file.
            mine = tuple(network for network, *_ in node["addresses"])
            if mine not in files:
                files[mine] = f"{self.scratch}/hosts{len(files)}"
                _write(files[mine], "127.0.0.1 localhost\n::1 localhost\n" + self.names_on(mine))
            self.hosts[node["name"]] = files[mine]
        # Names that no hosts file has: there is no name server here, so let the question fail at once.
        _write(f"{self.scratch}/resolv.conf", "")

    def names_on(self, networks: tuple[str, ...]) -> str:
        """The lines of hosts(5) for whoever is on these networks: each node by the address on the first one they share."""
        lines = []
        for node in self.message["nodes"]:
            shared = [addresses for network, *addresses in node["addresses"] if network in networks]
            names = " ".join([node["name"], *node["aliases"]])
            lines += [f"{address} {names}\n" for addresses in shared[:1] for address in addresses]
        return "".join(lines)

    def enter(self, node: str) -> None:
        """In a forked child: move to a node."""
        if self.isolated:
            linux.setns(self.namespaces[node], linux.CLONE_NEWNET)
            linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWUTS)
            socket.sethostname(node[:64])
            for source, target in (
                (self.hosts[node], "/etc/hosts"),
                (f"{self.scratch}/resolv.conf", "/etc/resolv.conf"),
            ):
                if os.path.exists(target):
                    linux.mount(source, os.path.realpath(target), None, linux.MS_BIND)

    # programs

    def start(self, message: dict[str, Any], descriptors: list[int]) -> None:
        number, node = message["program"], message["node"]
        if message["do"] == "inside":
            child, complaint = self.fork_ours(message, descriptors[0]), b""
        else:
            child, complaint = self.fork_program(message, descriptors)
        if complaint:
            os.waitpid(child, 0)
            send(self.control, {"program": number, **json.loads(complaint)})
            return
        self.programs[child] = number
        handle = os.pidfd_open(child)
        tables = self.tables(node) if node is not None else []
        send(self.control, {"program": number, "started": True}, [handle, *tables])
        for each in (handle, *tables):
            os.close(each)

    def fork_ours(self, message: dict[str, Any], stream: int) -> int:
        """A child that is one of our own programs, on its stream."""
        serve, parent = self.serve(message), os.getpid()
        child = os.fork()
        if child:
            return child
        try:
            self.settle(parent, message["node"])
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as in every Python: EPIPE is an error to be told
            serve(stream)
            os._exit(0)
        finally:
            os._exit(127)

    def fork_program(self, message: dict[str, Any], descriptors: list[int]) -> tuple[int, bytes]:
        """A child that becomes a program, and why it did not: nothing, when it did."""
        report, problem = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        if message.get("confined", {}).get("cell"):
            importlib.import_module("shutil")  # now: where the child is going there may be none
        child = os.fork()
        if child == 0:
            os.close(report)
            self.become(message, descriptors, problem, parent)
        os.close(problem)
        complaint = _read_all(report)
        os.close(report)
        return child, complaint

    def become(self, message: dict[str, Any], descriptors: list[int], problem: int, parent: int) -> NoReturn:
        """In the child: be the program that is asked for, or say on `problem` what stood in the way."""
        stage = "enter its node"
        try:
            self.settle(parent, message["node"])
            confined = message.get("confined", {})
            cell = confined.get("cell") if self.isolated and message["node"] is not None else None
            stage = f"enter the folder {message['cwd']}"
            if cell:
                _move_into(cell, message["cwd"])
            else:
                os.chdir(message["cwd"])
            stage = "take its descriptors"
            problem = _spread(descriptors, problem)
            _limit(confined)
            if cell:
                _become(cell["uid"])
            stage = f"start {message['argv'][0]}"
            os.execvpe(message["argv"][0], message["argv"], message["env"])
        except BaseException as exc:
            number = exc.errno if isinstance(exc, OSError) else errno.EINVAL
            known = isinstance(exc, OSError) and number
            reason = os.strerror(number or 0) if known else f"{type(exc).__name__}: {exc}"
            told = json.dumps({"stage": stage, "reason": reason, "errno": number})
            try:
                os.write(problem, told.encode()[:4000])
            except OSError:
                pass
        finally:
            os._exit(127)

    def settle(self, parent: int, node: str | None) -> None:
        """In a forked child: be a process of its own, on its node."""
        self.control.close()
        _die_with(parent)
        os.setsid()
        if node is not None:
            self.enter(node)
        signal.set_wakeup_fd(-1)
        for which in _RESET:
            signal.signal(which, signal.SIG_DFL)

    def serve(self, message: dict[str, Any]) -> Callable[[int], None]:
        """What one of our own programs runs on its stream."""
        if message["which"] == "capture":
            capture, local = ours("capture"), message["local"]
            return lambda fd: capture.serve_lab(fd, self.move, self.ports, local)
        program = self.agent if message["which"] == "agent" else ours(message["which"])
        return lambda fd: program.serve(fd, fd)

    def move(self, node: str | None) -> None:
        """Be in the network of a node, or of the switch."""
        linux.setns(self.namespaces[node] if node is not None else self.switch, linux.CLONE_NEWNET)

    def tables(self, node: str) -> list[int]:
        """What reads a node's sockets: a netlink socket for sock_diag(7), and the tables of proc(5), open, for whoever has
        them to read anew at any time."""
        if not self.isolated or node in self.tables_sent:
            return []
        self.tables_sent.add(node)
        here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            linux.setns(self.namespaces[node], linux.CLONE_NEWNET)
            diagnosis = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG).detach()
            names = [name for name in _TABLES if os.path.exists(f"/proc/self/net/{name}")]
            return [
                diagnosis,
                *(os.open(f"/proc/self/net/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in names),
            ]
        finally:
            linux.setns(here, linux.CLONE_NEWNET)
            os.close(here)

    def reap(self) -> None:
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            if ended.si_pid in self.programs:
                # As in a container: with its main process, all of a program ends. Its group's number is not free before we wait.
                try:
                    os.killpg(ended.si_pid, signal.SIGKILL)
                except OSError:
                    pass
            _, status = os.waitpid(ended.si_pid, 0)
            number = self.programs.pop(ended.si_pid, None)
            if number is not None:
                send(self.control, {"exited": number, "status": os.waitstatus_to_exitcode(status)})

    def end(self) -> None:
        """Kill everything that is ours and wait until it is gone."""
        signal.set_wakeup_fd(-1)
        while True:
            # Not `isolated`: where the kernel refused us a PID namespace of our own, -1 means everybody on the machine.
            if os.getpid() == 1:
                try:
                    os.kill(-1, signal.SIGKILL)  # everything in our PID namespace but ourselves
                except ProcessLookupError:
                    pass
            else:
                for pid in _children():
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]


def _die_with(parent: int) -> None:
    linux.die_with_parent()
    if os.getppid() not in (
        parent,
        0,
    ):  # it ended before we could ask; 0 is a parent outside our PID namespace
        os._exit(1)


def _limit(confined: dict[str, Any]) -> None:
    """setrlimit(2). Of the number of processes root is not bound, and it counts all of a user's: so only in a cell."""
    kinds = [("descriptors", resource.RLIMIT_NOFILE), ("file", resource.RLIMIT_FSIZE)]
    if confined.get("cell"):
        kinds.append(("processes", resource.RLIMIT_NPROC))
    for name, which in kinds:
        if wanted := confined.get(name):
            _, hard = resource.getrlimit(which)
            wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(which, (wanted, wanted))
    if confined:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


WORK = "/tmp/work"
_WRITABLE = ("/tmp", "/var/tmp", "/dev/shm", "/run/lock", "/var/lock")


def _move_into(cell: dict[str, Any], folder: str) -> None:
    """In the mount namespace of this program alone: nothing that others can write, nothing that is hidden, and its folder at WORK."""
    import shutil

    source = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    tmpfs = linux.MS_NOSUID | linux.MS_NODEV
    for path in cell["hide"]:
        if os.path.isdir(path):
            linux.mount("tmpfs", path, "tmpfs", tmpfs, "mode=755,size=4k")
        elif os.path.isfile(path):
            linux.mount(os.devnull, path, None, linux.MS_BIND)
    for path in _WRITABLE:
        if os.path.isdir(path) and not os.path.islink(path):
            linux.mount("tmpfs", path, "tmpfs", tmpfs, f"mode=1777,size={cell['size']}")
    os.mkdir(WORK)
    if cell["at_work"]:
        linux.mount(f"/proc/self/fd/{source}", WORK, None, linux.MS_BIND)
    else:
        shutil.copytree(f"/proc/self/fd/{source}", WORK, symlinks=True, dirs_exist_ok=True)
        for root, folders, files in os.walk(WORK):
            for each in (root, *(os.path.join(root, name) for name in (*folders, *files))):
                with _where_there_are_other_users():
                    os.chown(each, cell["uid"], cell["uid"], follow_symlinks=False)
    os.close(source)
    os.chdir(WORK)


def _become(uid: int) -> None:
    """Another user, where we may be one."""
    with _where_there_are_other_users():
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    linux.die_with_parent()


@contextlib.contextmanager
def _where_there_are_other_users() -> Iterator[None]:
    """In the namespace of an ordinary user there is no other (user_namespaces(7)): there what asks for one is passed over."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.EINVAL):
            raise


def _spread(descriptors: list[int], problem: int) -> int:
    """Make the descriptors 0, 1, 2 and close all others but the one on which a failure is told."""
    import fcntl

    safe = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in descriptors]
    problem = fcntl.fcntl(problem, fcntl.F_DUPFD_CLOEXEC, 10)
    for target, each in enumerate(safe):
        os.dup2(each, target, inheritable=True)
    os.closerange(3, problem)
    os.closerange(problem + 1, 1 << 20)
    return problem


def _wait_until_up(ends: list[tuple[Links, int]]) -> None:
    """Until both ends of every link carry packets, or the first one sent would be lost, and TCP sends it again after a second."""
    deadline = time.monotonic() + LINK_LIMIT
    for links, device in ends:
        while not links.is_up(device):
            if time.monotonic() > deadline:
                raise OSError(errno.ETIMEDOUT, f"an interface is not up after {LINK_LIMIT} s")
            time.sleep(0.001)  # the kernel tells by an event, too; it is nearly always up at the first look


def _settle_ipv6() -> None:
    """No address that the kernel makes up by itself, asking whether it is taken; and a cable that is plugged in again finds its
    addresses as it left them, as with IPv4 (ip-sysctl)."""
    for name, value in (("default/addr_gen_mode", "1"), ("all/keep_addr_on_down", "1")):
        try:
            _write(f"/proc/sys/net/ipv6/conf/{name}", value)
        except OSError:
            pass  # no IPv6 here, or /proc/sys is read-only; then such packets stand in the capture


def _read_all(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, 4096):
        parts.append(part)
    return b"".join(parts)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _wake_on_child() -> socket.socket:
    """A socket that becomes readable when a child has ended."""
    wake, waker = socket.socketpair()
    wake.setblocking(False)
    waker.setblocking(False)
    _keep.append(waker)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return wake


_keep: list[socket.socket] = []


def _drain(wake: socket.socket) -> None:
    try:
        while wake.recv(4096):
            pass
    except BlockingIOError:
        pass


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(control.fileno(), False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Keeper(control, sys.argv[2]).run()


if __name__ == "__main__":
    main()
