"""The pytest plugin: scenario files are test items, where somebody asked for it."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from tests.faces.conftest import ECHO, SCENARIO, Folder

TWO = SCENARIO.replace("service: echo", "service: [echo, other]")


def test_it_does_nothing_unless_asked(folder: Folder) -> None:
    """A project that never heard of socklab collects no YAML."""
    done = folder.pytest("-q")

    assert "no tests ran" in done.stdout
    assert done.returncode == 5


def test_asked_in_the_configuration_every_play_is_an_item(folder: Folder) -> None:
    """One item for each service under test, named after it."""
    folder.service("other", ECHO)
    folder.scenario(TWO)
    (folder.path / "pytest.ini").write_text("[pytest]\nsocklab = true\n")

    done = folder.pytest("-v", "--socklab-on", "process")

    assert done.returncode == 0, done.stdout
    assert "echo.scenario.yaml::echo PASSED" in done.stdout
    assert "echo.scenario.yaml::other PASSED" in done.stdout


def test_a_failure_is_the_five_lines_and_no_traceback(folder: Folder) -> None:
    folder.service("echo", ECHO.replace("recv(CHUNK)", "recv(CHUNK).upper()"))

    done = folder.pytest("--socklab", "--socklab-on", "process")

    assert done.returncode == 1
    assert "echo.scenario.yaml:7: expect: {alice: hello} within: 1s" in done.stdout
    assert 'got       alice: "HELLO"' in done.stdout
    assert "Traceback" not in done.stdout
    assert "pytest_plugin.py" not in done.stdout


def test_an_invalid_file_is_a_collection_error_at_its_place(folder: Folder) -> None:
    folder.scenario(SCENARIO.replace("send:", "sned:"))

    done = folder.pytest("--socklab")

    assert done.returncode == 2
    assert 'echo.scenario.yaml:6:5: unknown verb or modifier "sned". Did you mean "send"?' in done.stdout
    assert "Traceback" not in done.stdout


def test_what_cannot_be_played_is_skipped_with_its_reason(folder: Folder) -> None:
    folder.scenario(SCENARIO + "  - cut: {from: alice, to: server}\n")

    done = folder.pytest("--socklab", "--socklab-on", "process", "-rs")

    assert "1 skipped" in done.stdout
    assert "play it --on netns" in done.stdout


def test_it_works_under_xdist_and_writes_junit(folder: Folder) -> None:
    """Each worker has a lab of its own; JUnit comes through pytest."""
    for number in range(6):
        folder.scenario(SCENARIO, f"echo-{number}.scenario.yaml")

    done = folder.pytest("--socklab", "--socklab-on", "process", "-n", "2", "--junit-xml", "out.xml")

    assert done.returncode == 0, done.stdout
    suite = ET.parse(folder.path / "out.xml").getroot().find("testsuite")
    assert suite is not None
    assert suite.get("tests") == "7"
