"""What the tests of pages share."""

from __future__ import annotations

import pytest

from docs import transcripts


@pytest.fixture(scope="session")
def namespaces() -> None:
    done = transcripts.apart(["--help"])
    if done.returncode:
        pytest.skip(f"pages are run in a network namespace of their own: {done.stdout.strip()}")
