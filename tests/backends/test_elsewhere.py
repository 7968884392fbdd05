"""Machines that are not like this one: an ordinary user, no nftables. Both are made here, by dropping rights and hiding programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
NOBODY = "65534"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root, to become somebody else or to hide a program"
)


@pytest.fixture
def readable() -> Iterator[Path]:
    """A copy of the project, with PyYAML beside it, that everybody may read."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("socklab", "services", "clients", "scenarios"):
            shutil.copytree(ROOT / name, Path(folder) / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "docker-compose.yml", folder)
        shutil.copytree(
            Path(yaml.__file__).parent,
            Path(folder) / "yaml",
            ignore=shutil.ignore_patterns("*.so", "__pycache__"),
        )
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        yield Path(folder)


def somebody_else(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run socklab as an ordinary user."""
    python = shutil.which("python3", path="/usr/bin:/bin")
    if (
        python is None
        or subprocess.run([python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]).returncode
    ):
        pytest.skip("no Python 3.11 or later that an ordinary user may run")
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    try:
        subprocess.run([*drop, "unshare", "-Urn", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        pytest.skip(f"no user namespaces for ordinary users here: {exc}")
    return subprocess.run(
        [*drop, python, "-m", "socklab", *words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )


def test_an_ordinary_user_plays_on_netns_too(readable: Path) -> None:
    """In a user namespace: networks, faults, names, and nothing asked of root."""
    done = somebody_else(
        readable, "play", "-q", "--no-runs", "--on", "netns", "scenarios/isolation", "scenarios/chat"
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed on netns" in done.stdout


@pytest.mark.timeout(300)
def test_an_ordinary_user_has_every_link_fault(readable: Path) -> None:
    """Each, and each two at once, held against packets counted at both ends."""
    done = somebody_else(readable, "doctor", "--measure")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "  gate       ok" in done.stdout
    assert "  cell       few  submissions run as you" in done.stdout
    assert "there cut: of 300 packets 300 lost" in done.stdout
    assert "\nno " not in done.stdout


def test_an_ordinary_user_grades_too(readable: Path) -> None:
    """A submission runs as the user then, for there is no other one, and still in a copy of its folder."""
    submission = readable / "submissions" / "kim"
    submission.mkdir(parents=True)
    shutil.copy(readable / "services" / "udp_echo.py", submission / "server.py")
    grades = readable / "grades"
    grades.mkdir(mode=0o777)
    grades.chmod(0o777)
    subprocess.run(["chmod", "-R", "a+rX", readable / "submissions"], check=True)

    command = ["python3", "server.py", "--host", "{host}", "--port", "{port}"]
    done = somebody_else(
        readable, "grade", "udp-echo", "submissions", "--on", "netns", "--out", str(grades), "--", *command
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "right" in done.stdout


def test_where_namespaces_are_refused_processes_serve_and_nobody_else_is_ended() -> None:
    """What ends a lab on netns, a signal to all in its PID namespace, must not be sent from where it never came to have one."""
    apart = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
    try:
        subprocess.run([*apart, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        pytest.skip(f"no user namespaces here: {exc}")
    script = f"""echo 0 > /proc/sys/user/max_net_namespaces
        sleep 100 & bystander=$!
        {sys.executable} -m socklab play -q --no-runs scenarios/udp-echo/boundaries-are-kept.yaml || exit
        kill -0 $bystander && echo he lives"""

    done = subprocess.run([*apart, "sh", "-c", script], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "network namespaces do not work here" in done.stderr
    assert "1 passed, 0 failed on process" in done.stdout
    assert done.stdout.endswith("he lives\n")


def hidden(*patterns: str) -> str:
    """A shell's words that hide these programs and libraries from what it starts next."""
    folders = ("/usr/sbin", "/sbin", "/usr/bin", "/usr/lib/*", "/lib/*")
    return f"for f in {' '.join(f'{d}/{p}' for p in patterns for d in folders)}; do [ -e $f ] && mount --bind /dev/null $f; done; "


def without(words: str, *patterns: str) -> subprocess.CompletedProcess[str]:
    """Run socklab on a machine that lacks these."""
    script = f"{hidden(*patterns)} exec {sys.executable} -m socklab {words}"
    return subprocess.run(["unshare", "-m", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True)


def test_without_nftables_link_faults_are_skipped_and_doctor_says_so(why_no_netns: str | None) -> None:
    """The rest is played, and the skip says how to get them."""
    if why_no_netns:
        pytest.skip(why_no_netns)
    gone = "libnftables.so.1*"
    done = without("play --no-runs --on netns scenarios/isolation", gone)

    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout
    assert "needs nftables to lose packets: apt install nftables" in done.stdout
    doctor = without("doctor", gone).stdout
    assert "  cut        no   needs nftables to lose packets: apt install nftables" in doctor
