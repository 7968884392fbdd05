"""The live page by hand: a person and a browser, a lab, and nothing between but the page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.seeing.serving import Server

pytest.importorskip("starlette", reason="needs socklab[web]")
pytest.importorskip("uvicorn", reason="needs socklab[web]")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.close()


@pytest.fixture
def lab(server: Server, tab: Any) -> Any:
    """A lab with a chat server, opened from the list. The page is closed before its server ends, of which it would complain."""
    tab.goto(server.url)
    tab.get_by_role("button", name="chat", exact=True).click()
    tab.wait_for_selector("#map [data-id]")
    return tab


def do(page: Any, step: str) -> None:
    """Type a step, and wait until it is done."""
    page.fill("#step", step)
    page.press("#step", "Enter")
    page.locator("#scenario li.done, #scenario li.failed").filter(has_text=step).last.wait_for()


def refused(complaints: list[str], status: int) -> None:
    """A browser complains of each answer that says no."""
    (complaint,) = complaints
    assert f"the server responded with a status of {status}" in complaint
    complaints.clear()


def event(page: Any, text: str) -> Any:
    """The row of the list that tells this."""
    page.fill("#search", text)
    return page.locator("#events [role=option]").filter(has_text=text).first


def test_a_link_is_cut_by_a_click_and_healed_by_another(lab: Any) -> None:
    do(lab, "connect: everyone")
    lab.get_by_role("button", name="link alice to server: whole").click()
    lab.get_by_role("button", name="cut", exact=True).click()
    lab.get_by_role("button", name="link alice to server: cut").wait_for()
    do(lab, "send: {bob: lost on alice}")
    event(lab, "dropped (cut)").wait_for()
    lab.get_by_role("button", name="heal", exact=True).click()
    lab.get_by_role("button", name="link alice to server: whole").wait_for()
    do(lab, "expect: {alice: lost on alice}")

    assert lab.locator("#scenario li.failed").count() == 0
    assert lab.locator("#scenario").inner_text().count("cut: {between: [alice, server]}") == 1


def test_a_fault_of_some_size_is_put_on_one_way_of_a_link(lab: Any) -> None:
    lab.get_by_role("button", name="link bob to server: whole").click()
    lab.get_by_label("which way").select_option(label="bob → server")
    lab.get_by_label("which fault").select_option("loss")
    lab.get_by_label("how many packets are lost").fill("100%")
    lab.get_by_role("button", name="put").click()

    lab.get_by_role("button", name="link bob to server: → loss 100%").wait_for()


def test_a_server_is_paused_and_killed_and_started_again(lab: Any) -> None:
    lab.get_by_role("button", name="server server (chat), up").click()
    for press, state in (("pause", "paused"), ("continue", "up"), ("kill", "ended"), ("restart", "up")):
        lab.get_by_role("button", name=press, exact=True).click()
        lab.get_by_role("button", name=f"server server (chat), {state}").wait_for()


def test_one_types_as_a_client(lab: Any) -> None:
    """Also braces, quotes, markup, other alphabets."""
    do(lab, "connect: [alice, bob]")
    lab.get_by_role("button", name="client alice, connected").click()
    for said in ('{n} "q" \\ <b>안녕</b>', "#REG"):
        lab.get_by_label("what alice sends").fill(said)
        lab.get_by_label("what alice sends").press("Enter")
        event(lab, said).wait_for()
        lab.fill("#search", "")
    do(lab, 'expect: {bob: [/<b>안녕<.b>$/, "#REG"]}')

    assert lab.locator("#scenario li.failed").count() == 0


def test_what_is_wrong_is_told_below_the_line(lab: Any, complaints: list[str]) -> None:
    lab.fill("#step", "connect: dora")
    lab.press("#step", "Enter")
    lab.locator("#told").filter(has_text='no client "dora"').wait_for()
    assert lab.input_value("#step") == "connect: dora"
    do(lab, "connect: alice")
    do(lab, "{expect: {alice: never}, within: 10ms}")
    lab.locator("#told").filter(has_text='expected  alice: "never"').wait_for()
    refused(complaints, 400)


def test_a_step_that_is_waited_for_can_be_broken_off(lab: Any, complaints: list[str]) -> None:
    do(lab, "connect: alice")
    lab.fill("#step", "{expect: {alice: never}, within: 10min}")
    lab.press("#step", "Enter")
    lab.get_by_role("button", name="Stop waiting").click()
    lab.locator("#told").filter(has_text="broken off").wait_for()
    do(lab, "send: {alice: on it goes}")
    refused(complaints, 409)


def test_a_reload_in_the_middle_misses_nothing_and_others_see_the_same(lab: Any) -> None:
    do(lab, "connect: everyone")
    other = lab.context.new_page()
    other.goto(lab.url)
    lab.reload()
    do(other, "send: {alice: seen by both}")
    for page in (lab, other):
        event(page, "seen by both").wait_for()
        page.locator("#scenario li.done").filter(has_text="send: {alice: seen by both}").wait_for()
        assert page.get_by_role("button", name="link alice to server: whole").count() == 1


def test_all_of_it_can_be_done_by_keyboard(lab: Any) -> None:
    lab.focus("#map [data-id]")
    lab.keyboard.press("Enter")
    assert lab.locator("#map [aria-pressed=true]").count() == 1
    lab.locator("#actions button").first.focus()
    for _ in range(30):
        if lab.evaluate("document.activeElement.textContent") == "cut":
            break
        lab.keyboard.press("Tab")
    lab.keyboard.press("Enter")
    lab.get_by_role("button", name=re.compile(r"link alice to server: cut")).wait_for()
    lab.focus("#step")
    lab.keyboard.type("heal: all")
    lab.keyboard.press("Enter")
    lab.get_by_role("button", name="link alice to server: whole").wait_for()
    lab.keyboard.press("ArrowUp")
    assert lab.input_value("#step") == "heal: all"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 390])
def test_axe_finds_no_serious_fault(lab: Any, theme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    lab.set_viewport_size({"width": width, "height": 800})
    if lab.evaluate("document.documentElement.dataset.theme") != theme:
        lab.click("#theme")
    do(lab, "cut: {between: [alice, server]}")
    lab.get_by_role("button", name="link alice to server: cut").click()

    found = axe.run(lab, options={"resultTypes": ["violations"]}).response["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
    assert lab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_what_was_done_is_saved_as_a_scenario_that_passes(lab: Any, server: Server, tmp_path: Path) -> None:
    do(lab, "connect: everyone")
    do(lab, "send: {alice: hello}")
    event(lab, "hello").wait_for()
    with lab.expect_download() as download:
        lab.get_by_role("link", name="Save as a scenario").click()
    text = Path(download.value.path()).read_text()

    assert download.value.suggested_filename == "by-hand.scenario.yaml"
    assert "- send: {alice: hello}\n  - expect: {" in text


def test_a_scenario_of_the_list_is_played_step_by_step(server: Server, tab: Any) -> None:
    tab.goto(server.url)
    tab.get_by_role("button", name="play A slow play, chat, by hand").click()
    for step in ("connect: everyone", "send: {alice: first}", "expect: {everyone: first}"):
        tab.locator("#following-step").filter(has_text=step).wait_for()
        tab.get_by_role("button", name="Next step").click()
    tab.locator("#scenario li.done").filter(has_text="expect: {everyone: first}").wait_for()
    tab.locator("#following-step").filter(has_text="wait: 1s").wait_for()


def test_a_lab_that_is_ended_keeps_its_story(lab: Any) -> None:
    do(lab, "connect: alice")
    lab.get_by_role("button", name="End this lab").click()
    lab.get_by_text("This lab has ended.").wait_for()
    lab.locator("#verdict").filter(has_text="pass").wait_for()
    lab.reload()
    lab.get_by_text("This lab has ended.").wait_for()
    event(lab, "connected").wait_for()


# asked without the page


def opened(server: Server, **what: Any) -> str:
    status, text = server.ask("POST", "/plays", what or {"service": "chat"})
    assert status == 201, text
    return str(json.loads(text)["id"])


def step(server: Server, id_: str, text: Any) -> tuple[int, Any]:
    status, answer = server.ask("POST", f"/plays/{id_}/steps", {"step": text})
    return status, json.loads(answer)


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"step": "nonsense"}, 400, 'expected a step, got "nonsense"'),
        ({"step": 1}, 400, "what is the step?"),
        ({}, 400, "what is the step?"),
        ({"next": "connect: alice"}, 409, "somebody else has played this step already"),
        ({"step": "x" * 300_000}, 413, "more than 256 KiB"),
        ({"step": "connect: {alice: {over: ipv6}}"}, 409, "no IPv6"),
    ],
)
def test_what_is_no_step_is_answered_in_a_line(server: Server, body: Any, status: int, told: str) -> None:
    id_ = opened(server)
    assert step(server, id_, "connect: bob") == (200, {"failure": None})
    answered, text = server.ask("POST", f"/plays/{id_}/steps", body)

    assert (answered, told in json.loads(text)["error"]) == (status, True), text
    assert step(server, id_, "send: {bob: hello}") == (200, {"failure": None})
    assert step(server, id_, "bob: hello") == (200, {"failure": None}), "as at the prompt of socklab shell"


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"service": "chatt"}, 400, 'no service \\"chatt\\"'),
        ({"service": "chat", "clients": ["everyone"]}, 400, "a word of the language"),
        ({"service": "chat", "clients": "alice"}, 400, "a list of names"),
        ({"service": "chat", "clients": []}, 400, "clients"),
        ({"scenario": "none", "by_hand": True}, 404, "no such scenario"),
    ],
)
def test_a_lab_that_cannot_be_is_refused_in_a_line(server: Server, body: Any, status: int, told: str) -> None:
    assert [status, True] == [(answer := server.ask("POST", "/plays", body))[0], told in answer[1]], answer


def test_there_are_not_more_labs_than_the_machine_can_bear(server: Server) -> None:
    ids = [opened(server) for _ in range(8)]
    status, text = server.ask("POST", "/plays", {"service": "chat"})
    assert (status, "end one of them first" in text) == (429, True)

    assert step(server, ids[0], "connect: alice")[0] == 200
    server.ask("POST", f"/plays/{ids[0]}/end")
    server.marks(ids[0])
    opened(server)


def test_nobody_gives_steps_to_a_play_that_is_judged(server: Server) -> None:
    status, text = server.ask("POST", f"/plays/{server.play('A slow play')}/steps", {"step": "kill: server"})

    assert (status, "takes no steps" in text) == (409, True)
