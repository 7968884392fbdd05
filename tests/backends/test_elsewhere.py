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


def test_an_ordinary_user_plays_on_netns_too(readable: Path) -> None:
    """In a user namespace: networks, faults, names, and nothing asked of root."""
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
    argv = [
        *drop,
        python,
        "-m",
        "socklab.cli",
        "play",
        "-q",
        "--no-runs",
        "--on",
        "netns",
        "scenarios/isolation",
        "scenarios/chat",
    ]
    done = subprocess.run(
        argv,
        cwd=readable,
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed on netns" in done.stdout


def test_without_nftables_silence_still_works_and_reject_is_skipped(why_no_netns: str | None) -> None:
    """Neighbour entries by iproute2 make the same silence; RST and ICMP need nftables, and the skip says how to get it."""
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")
    if why_no_netns or nft is None or shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin") is None:
        pytest.skip(why_no_netns or "nft or ip is not here, so there is nothing to hide")
    script = f"mount --bind /dev/null {nft} && exec {sys.executable} -m socklab.cli play --no-runs --on netns scenarios/isolation"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout
    skipped = [line for line in done.stdout.splitlines() if line.startswith("skip")]
    assert skipped
    assert all("refus" in line for line in skipped)
    assert "needs reject, which needs nftables: apt install nftables" in done.stdout
