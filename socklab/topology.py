"""The lab's servers and networks, read from docker-compose.yml: the one description for every backend.

Only what a lab needs is understood; the rest of a compose file is left to Compose. What a service's label
`socklab.contract` says (echo, chat, udp-echo, registry) decides how its bytes become messages.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import yaml

from socklab import places
from socklab.contracts import CONTRACTS, Contract
from socklab.dialect import CHUNKS
from socklab.errors import UserError
from socklab.guest import Guest
from socklab.matching import DATAGRAM, LINE, STREAM
from socklab.source import nearest, printable

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
"""In the order in which Compose itself takes them."""
CONTROL = "socklab.control"
"""The label of a network that is the lab's own, for its control streams: no scenario knows of it."""
CLIENT = "client"
"""The compose service whose containers are the clients; its networks are theirs."""
_BY_NAME = {
    **dict.fromkeys(("echo", "echo-unix", "handler", "threaded", "forking", "eventloop"), "echo"),
    **dict.fromkeys(("chat", "chat-eventloop"), "chat"),
    "udp-echo": "udp-echo",
    "udp-registry": "registry",
}
_FRAMING = {"echo": STREAM, "chat": LINE, "udp-echo": DATAGRAM, "registry": DATAGRAM}
_LARGEST = 4 << 20  # characters of a compose file
_FOLDED = 50  # levels of maps and lists within one another; more is no compose file


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Scalars stay the text that is written, as Compose takes them: PyYAML's YAML 1.1 reads 2222:22 as a number in base 60
    and `on` as true. Only null, true and false, and merge keys mean something."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


for _tag, _written, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_written})\Z"), _first)


class TopologyError(UserError):
    """A compose file that no lab can be made of. One or two lines, with the file and the way out."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message, 500))


@dataclass(frozen=True)
class Service:
    """One service of the compose file, as far as a lab needs it."""

    name: str
    command: tuple[str, ...]
    """entrypoint and command together; empty: the image brings it."""
    environment: Mapping[str, str]
    networks: tuple[str, ...]
    aliases: tuple[str, ...]
    protocol: str
    """tcp, udp or unix"""
    port: int | None
    path: str | None
    """Of an AF_UNIX server: where it listens."""
    contract: str | None
    """What its label says."""
    guest: Guest | None = None
    """It is not of the compose file: a user brought it."""

    def judged_as(self, contract: str | None) -> Service:
        """The service as a scenario of this contract sees it. Its own label comes first, then the scenario's contract,
        then its name where that is one of ours; a server of which nothing is known speaks lines over TCP."""
        known = self.contract or contract or _BY_NAME.get(self.name)
        if known is not None and CONTRACTS[known].protocol == "udp" and self.protocol == "tcp":
            return replace(self, contract=known, protocol="udp")
        return replace(self, contract=known)

    @property
    def framing(self) -> str:
        """How its bytes become messages."""
        if self.protocol == "udp":
            return DATAGRAM
        if self.guest is not None and self.guest.dialect.frames == CHUNKS:
            return STREAM
        return _FRAMING.get(self.contract or "", LINE)


@dataclass(frozen=True)
class Topology:
    path: Path
    services: Mapping[str, Service]
    networks: Mapping[str, bool]
    """Name → whether it is internal."""

    @property
    def root(self) -> Path:
        """The project's root: the folder of the compose file."""
        return self.path.parent

    @classmethod
    def of_guest(
        cls, contract: Contract | None, command: tuple[str, ...], guest: Guest, port: int, model: str
    ) -> Topology:
        """A lab with nothing in it but a guest, which is called what our own server of its kind is called. Without a contract it speaks
        lines over TCP."""
        service = Service(
            name=model,
            command=command,
            environment={},
            networks=("lab",),
            aliases=(),
            protocol=contract.protocol if contract else "tcp",
            port=port,
            path=None,
            contract=contract.name if contract else None,
            guest=guest,
        )
        return cls(guest.folder / NAMES[0], {model: service}, {"lab": True})

    def with_guest(self, name: str, guest: Guest) -> Topology:
        """The same, with this service for a guest."""
        return replace(self, services={**self.services, name: replace(self.services[name], guest=guest)})

    def service(self, name: str) -> Service:
        """Raises TopologyError for a name that the file does not have."""
        if name not in self.services:
            # Who speaks a contract can be asked for; gates and clients only stand beside them.
            servers = [name for name, service in self.services.items() if service.contract]
            known = ", ".join(sorted(servers or self.services))
            raise TopologyError(
                f'no service "{name}" in {self.path}.{nearest(name, self.services) or f" There are: {known}"}'
            )
        return self.services[name]

    @property
    def client_networks(self) -> tuple[str, ...]:
        client = self.services.get(CLIENT)
        return client.networks if client else ()


def is_port(text: str) -> bool:
    """Whether a text is the number of a port that one can connect to."""
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and 0 < int(text) < 65536


def find(start: Path) -> Path:
    """The compose file of `start` or of the nearest folder above it. Raises TopologyError."""
    start = start.resolve()
    for folder in [start, *start.parents] if start.is_dir() else start.parents:
        for name in NAMES:
            if (folder / name).is_file():
                return folder / name
    raise TopologyError(
        f"no docker-compose.yml in {start if start.is_dir() else start.parent} or above it; name one with --compose FILE"
    )


def find_or_ours(start: Path) -> Path:
    """The same, or where there is none the compose file of the lab that socklab brings. Raises TopologyError."""
    try:
        return find(start)
    except TopologyError:
        if places.COMPOSE.is_file():
            return places.COMPOSE
        raise


def read(path: Path, environment: Mapping[str, str] | None = None) -> Topology:
    """Raises TopologyError."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LARGEST)
        if len(text) == _LARGEST:
            raise TopologyError(f"{path}: is larger than {_LARGEST >> 20} MiB; is it a compose file?")
        data = yaml.load(text, _Loader)
    except OSError as exc:
        raise TopologyError(f"{path}: cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise TopologyError(f"{path}: is not UTF-8; save the file as UTF-8") from None
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else f"{path}"
        raise TopologyError(f"{where}: not valid YAML: {exc.problem or exc.context}") from None
    except RecursionError:
        raise TopologyError(f"{path}: is nested too deep for a compose file") from None
    except (yaml.YAMLError, ValueError) as exc:
        raise TopologyError(f"{path}: not valid YAML: {' '.join(str(exc).split())}") from None
    if not isinstance(data, dict) or not isinstance(data.get("services"), dict) or not data["services"]:
        raise TopologyError(f"{path}: has no services: map; is it a compose file?")
    reader = _Reader(path, {**_dot_env(path.parent), **(os.environ if environment is None else environment)})
    return reader.topology(data)


class _Reader:
    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self.path = path
        self.environment = environment

    def wrong(self, where: str, message: str) -> TopologyError:
        return TopologyError(f"{self.path}: {where}: {message}")

    def topology(self, data: dict[str, Any]) -> Topology:
        data = self.interpolate(data, {}, 0)
        networks: dict[str, bool] = {}
        control = set()
        for name, options in self._map("networks", data.get("networks")).items():
            if isinstance(options, dict) and CONTROL in self._pairs(
                f"networks.{name}.labels", options.get("labels")
            ):
                control.add(str(name))
                continue
            networks[str(name)] = bool(isinstance(options, dict) and options.get("internal"))
        services = {}
        for name, options in data["services"].items():
            where = f"services.{name}"
            service = self.service(str(name), self._map(where, options), where)
            service = replace(service, networks=tuple(n for n in service.networks if n not in control))
            services[service.name] = service
            for network in service.networks:
                if network == "default":
                    networks.setdefault("default", False)
                elif network not in networks:
                    raise self.wrong(
                        f"{where}.networks", f'no network "{network}".{nearest(network, networks)}'
                    )
        return Topology(self.path, services, networks)

    def service(self, name: str, options: dict[str, Any], where: str) -> Service:
        if "extends" in options:
            raise self.wrong(where, "extends: is not read by socklab; write the service out")
        command = (
            *self._words(f"{where}.entrypoint", options.get("entrypoint")),
            *self._words(f"{where}.command", options.get("command")),
        )
        networks, aliases = self._networks(where, options)
        labels = self._pairs(f"{where}.labels", options.get("labels"))
        contract = labels.get("socklab.contract")
        if contract is not None and contract not in _FRAMING:
            raise self.wrong(
                f"{where}.labels", f'socklab.contract: "{contract}" is none of {", ".join(_FRAMING)}'
            )
        protocol, port, path = self._endpoint(where, command, options)
        extra = [options[key] for key in ("container_name", "hostname") if isinstance(options.get(key), str)]
        return Service(
            name=name,
            command=command,
            environment=self._pairs(f"{where}.environment", options.get("environment")),
            networks=networks,
            aliases=tuple(dict.fromkeys([*aliases, *extra])),
            protocol=protocol,
            port=port,
            path=path,
            contract=contract,
        )

    def _networks(self, where: str, options: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if self._text(f"{where}.network_mode", options.get("network_mode", "bridge")) not in (
            "bridge",
            "default",
        ):
            return (), ()  # none, or somebody else's
        given = options.get("networks")
        if given is None:
            return ("default",), ()
        if isinstance(given, list):
            return tuple(self._texts(f"{where}.networks", given)), ()
        aliases = [
            alias
            for network, value in self._map(f"{where}.networks", given).items()
            if isinstance(value, dict)
            for alias in self._texts(f"{where}.networks.{network}.aliases", value.get("aliases"))
        ]
        return tuple(map(str, given)), tuple(aliases)

    def _endpoint(
        self, where: str, command: tuple[str, ...], options: dict[str, Any]
    ) -> tuple[str, int | None, str | None]:
        """Where it will listen: as the command says (--port, --unix), else as expose: or ports: say."""
        if path := _option(command, "--unix"):
            return "unix", None, path
        published = [
            *self._list(f"{where}.expose", options.get("expose")),
            *self._list(f"{where}.ports", options.get("ports")),
        ]
        ports: list[tuple[int, str]] = []
        for entry in published:
            place = f"{where}.ports"
            if isinstance(entry, dict):
                target = self._text(place, entry.get("target", ""))
                proto = self._text(place, entry.get("protocol", "tcp"))
            else:
                target, _, proto = self._text(place, entry).rpartition(":")[2].partition("/")
            if re.fullmatch(r"[0-9]+", target):  # a range of ports does not say where it listens
                ports.append((self._port(where, target), proto or "tcp"))
        port, protocol = ports[0] if ports else (None, "tcp")
        if (given := _option(command, "--port")) is not None:
            port = self._port(f"{where}.command: --port", given)
            protocol = next((proto for number, proto in ports if number == port), protocol)
        if protocol not in ("tcp", "udp"):
            raise self.wrong(where, f'protocol "{protocol}" is neither tcp nor udp')
        return protocol, port, None

    def _port(self, where: str, text: str) -> int:
        if not is_port(text):
            raise self.wrong(where, f'"{printable(text, 20)}" is no port from 1 to 65535')
        return int(text)

    # shapes that Compose allows

    def _list(self, where: str, value: Any) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.wrong(where, "is not a list")
        return value

    def _texts(self, where: str, value: Any) -> list[str]:
        return [self._text(where, entry) for entry in self._list(where, value)]

    def _text(self, where: str, value: Any) -> str:
        if isinstance(value, dict | list) or value is None:
            kind = "nothing" if value is None else "a map" if isinstance(value, dict) else "a list"
            raise self.wrong(where, f"has {kind} in it where a text belongs")
        return str(value).lower() if isinstance(value, bool) else str(value)

    def _map(self, where: str, value: Any) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.wrong(where, "is not a map")
        return value

    def _words(self, where: str, value: Any) -> tuple[str, ...]:
        if value is None:
            return ()
        if isinstance(value, list):
            return tuple(self._texts(where, value))
        try:
            return tuple(shlex.split(self._text(where, value)))
        except ValueError as exc:
            raise self.wrong(where, f"cannot be split into words: {exc}") from None

    def _pairs(self, where: str, value: Any) -> dict[str, str]:
        if isinstance(value, list):
            entries = [entry.partition("=") for entry in self._texts(where, value)]
            return {
                name: text if sign else self.environment.get(name, "")
                for name, sign, text in entries
                if sign or name in self.environment
            }
        result = {}
        for name, text in self._map(where, value).items():
            if text is None:
                if str(name) in self.environment:
                    result[str(name)] = self.environment[str(name)]
            else:
                result[str(name)] = self._text(f"{where}.{name}", text)
        return result

    # ${VARIABLES}: https://docs.docker.com/reference/compose-file/interpolation/

    def interpolate(self, value: Any, known: dict[int, Any], depth: int) -> Any:
        """The value with its variables filled in. What anchors share is done once, so that it cannot explode."""
        if isinstance(value, str):
            return self._fill(value)
        if not isinstance(value, list | dict):
            return value
        if depth > _FOLDED:
            raise TopologyError(f"{self.path}: is nested more than {_FOLDED} deep, or an anchor holds itself")
        if id(value) not in known:
            if isinstance(value, list):
                known[id(value)] = [self.interpolate(item, known, depth + 1) for item in value]
            else:
                known[id(value)] = {k: self.interpolate(v, known, depth + 1) for k, v in value.items()}
        return known[id(value)]

    def _fill(self, text: str) -> str:
        return _VARIABLE.sub(self._variable, text)

    def _variable(self, match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        name, operator, rest = match[1] or match[2], match[3] or "", match[4] or ""
        given = self.environment.get(name)
        present = given is not None and (given != "" or not operator.startswith(":"))
        if operator.endswith("-"):
            return given if present and given is not None else self._fill(rest)
        if operator.endswith("?") and not present:
            raise TopologyError(
                f"{self.path}: ${{{name}}} is not set: {self._fill(rest) or 'it is required'}"
            )
        if operator.endswith("+"):
            return self._fill(rest) if present else ""
        return given or ""


_VARIABLE = re.compile(r"\$\$|\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?:(:?[-?+])((?:[^{}]|\{[^{}]*\})*))?\})")


def _option(command: tuple[str, ...], name: str) -> str | None:
    """The value of `--name VALUE` or `--name=VALUE`."""
    for i, word in enumerate(command):
        if word == name and i + 1 < len(command):
            return command[i + 1]
        if word.startswith(name + "="):
            return word.partition("=")[2]
    return None


def with_option(command: tuple[str, ...], name: str, value: str) -> tuple[str, ...]:
    """The command with the value of an option replaced, where it has that option."""
    result, skip = [], False
    for i, word in enumerate(command):
        if skip:
            skip = False
        elif word == name and i + 1 < len(command):
            result += [name, value]
            skip = True
        elif word.startswith(name + "="):
            result.append(f"{name}={value}")
        else:
            result.append(word)
    return tuple(result)


def _dot_env(folder: Path) -> dict[str, str]:
    """The .env file beside the compose file, which Compose reads too."""
    try:
        text = (folder / ".env").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = (
        line.partition("=") for line in text.splitlines() if "=" in line and not line.lstrip().startswith("#")
    )
    return {name.strip().removeprefix("export "): value.strip().strip("\"'") for name, _, value in pairs}
