"""report.html in a real browser: what a person sees, and that nothing a server sends can break it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from socklab.conductor import Options
from socklab.diagram import drawn
from socklab.history import Event, read
from socklab.page import report
from tests.conductor.lab import play
from tests.seeing.histories import HOSTILE, connected, events, fault, got, play_of, sent

Open = Callable[..., Any]

TEXT = (
    "title: A play\nsteps:\n  - connect: [alice, bob]\n  - send: {alice: hello}\n  - expect: {bob: hello}\n"
)


def step(ms: int, line: int, text: str, phase: str) -> tuple[int, str, str, dict[str, Any]]:
    return (
        ms,
        "",
        "step",
        {"line": line, "path": str(line), "verb": text.split(":")[0], "text": text, "phase": phase},
    )


FAILED = events(
    play_of(scenario=TEXT),
    step(2, 3, "connect: [alice, bob]", "begin"),
    connected(5, "alice", 4000),
    connected(6, "bob", 4001),
    step(7, 3, "connect: [alice, bob]", "end"),
    step(9, 4, "send: {alice: hello}", "begin"),
    sent(10, "alice", "hello\n"),
    step(11, 4, "send: {alice: hello}", "end"),
    step(12, 5, "expect: {bob: hello}", "begin"),
    fault(13, server_bob="cut"),
    got(14, "alice", "hello\n"),
    (15, "server", "log", {"stream": "stderr", "text": "ValueError: what"}),
    step(2000, 5, "expect: {bob: hello}", "failed"),
    (2001, "", "verdict", {"verdict": "fail", "reason": "…", "line": 5, "expected": "bob: hello", "got": "bob: nothing", "cause": "the server forgot bob"}),
)  # fmt: skip


def test_a_failed_play_says_why_at_first_sight(opened: Open) -> None:
    page = opened(FAILED)

    assert page.inner_text("#verdict") == "fail"
    why = page.inner_text("#why")
    assert "the server forgot bob" in why
    assert "bob: hello" in why
    assert "bob: nothing" in why
    assert "line 5" in why
    assert page.inner_text("#scenario .failed button").strip() == "- expect: {bob: hello}"


def test_pointing_at_a_step_lights_what_it_caused_and_back(opened: Open) -> None:
    page = opened(FAILED)

    page.hover("#scenario li:nth-child(4) button")
    assert page.evaluate("page.store.marks.get(page.diagram.lit).line") == 4

    x, y = page.evaluate("(([m]) => { const [x0, y0, x1, y1] = page.diagram.ends(m); return [(x0 + x1) / 2, (y0 + y1) / 2] })(page.store.rows.filter(m => m.what === 'data'))")  # fmt: skip
    box = page.locator("#canvas").bounding_box()
    page.mouse.move(box["x"] + x, box["y"] + y)
    assert page.locator("#scenario li.lit .number").inner_text() == "4"
    page.mouse.click(box["x"] + x, box["y"] + y)
    assert "alice → server" in page.inner_text("#detail")


def test_everything_can_be_reached_by_keyboard(opened: Open) -> None:
    page = opened(FAILED)

    page.keyboard.press("Home")
    assert "alice" in page.inner_text("#detail")
    page.keyboard.press("ArrowDown")
    assert "bob" in page.inner_text("#detail")
    page.keyboard.press("End")
    assert "ValueError" in page.inner_text("#detail")
    page.keyboard.press("Escape")
    assert page.inner_text("#detail") == "nothing selected"
    page.keyboard.press("]")
    assert page.inner_text("#detail").startswith("line 3")
    page.keyboard.press("f")
    assert page.locator("#scenario li.lit .number").inner_text() == "5"
    page.keyboard.press("/")
    page.keyboard.type("valueerror")
    assert page.inner_text("#count") == "1 event"


def test_a_node_or_a_kind_can_be_left_out(opened: Open) -> None:
    page = opened(FAILED)
    all_ = page.evaluate("page.store.rows.length")

    page.click("#kinds label:has-text('logs')")
    assert page.evaluate("page.store.rows.length") == all_ - 1
    page.click("summary:has-text('Nodes')")
    page.click("#nodes label:has-text('bob')")
    assert page.evaluate("page.store.inView().map(l => l.name)") == ["alice", "server"]


def test_a_link_leads_to_its_moment(opened: Open) -> None:
    page = opened(FAILED)
    page.keyboard.press("Home")
    page.keyboard.press("j")
    link, detail = page.url, page.inner_text("#detail")

    page.goto("about:blank")
    page.goto(link)
    page.wait_for_selector("html[data-ready]")

    assert "#" in link
    assert page.inner_text("#detail") == detail


def test_time_can_be_even_or_true(opened: Open) -> None:
    page = opened(FAILED)
    height = "page.store.y(2000e6) - page.store.y(1000e6)"
    even = page.evaluate(height) / page.evaluate("page.store.height")
    page.keyboard.press("t")

    assert even < 0.35
    assert page.evaluate(height) / page.evaluate("page.store.height") > 0.4


@pytest.mark.parametrize("where", ["sent", "log", "title", "node"])
def test_whatever_was_sent_is_shown_and_never_run(opened: Open, where: str) -> None:
    told = [
        play_of(title="".join(HOSTILE)[:5000] if where == "title" else "A play"),
        connected(1, "alice", 4000),
    ]
    for i, text in enumerate(HOSTILE):
        if where == "sent":
            told += [sent(10 + i, "alice", text), got(30 + i, "alice", text)]
        elif where == "log":
            told.append((10 + i, "server", "log", {"stream": "stdout", "text": text}))
        else:
            told.append((10 + i, text[:60], "eof", {}))
    page = opened(events(*told, (99, "", "verdict", {"verdict": "error", "reason": "".join(HOSTILE)[:2000]})))

    assert page.title() != "broken"
    assert page.locator("main script, main img, aside img").count() == 0
    for key in ("Home", "j", "j", "0"):
        page.keyboard.press(key)


def test_a_page_can_load_and_run_nothing_else(opened: Open, complaints: list[str]) -> None:
    page = opened(FAILED)

    blocked = page.evaluate("(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s); return window.ran ?? 'not run' })()")  # fmt: skip
    assert blocked == "not run"
    assert "Content Security Policy" in complaints.pop()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_fault(opened: Open, theme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    page = opened(FAILED)
    page.evaluate(f"theme.show('{theme}')")

    found = axe.Axe().run(page).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []


def test_a_phone_can_show_it(opened: Open) -> None:
    page = opened(FAILED)
    page.set_viewport_size({"width": 390, "height": 780})

    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#canvas").bounding_box()["width"] > 300


def test_on_paper_stands_the_whole_drawing(opened: Open, tmp_path: Path) -> None:
    """Whatever is in the window, in light colours, and the page is afterwards as before."""
    page = opened(many(400))
    page.evaluate("theme.show('dark')")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    heights = page.evaluate("[...document.querySelectorAll('#printed canvas')].map(c => c.height / 2)")
    assert sum(heights) >= page.evaluate("page.store.height")
    assert page.evaluate("theme.now") == "light"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("[theme.now, document.querySelectorAll('#printed canvas').length]") == ["dark", 0]

    page.pdf(path=tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes().count(b"/Type /Page\n") > 10


def many(count: int) -> list[Event]:
    told = [play_of(), connected(1, "alice", 4000), connected(2, "bob", 4001)]
    for i in range(count // 2):
        told += [sent(10 + 3 * i, "alice", f"line {i}\n"), got(11 + 3 * i, "bob", f"line {i}\n")]
    return events(*told, (10 + 2 * count, "", "verdict", {"verdict": "pass"}))


@pytest.mark.parametrize(("count", "most"), [(10_000, 2_000_000), (100_000, 20_000_000)])
def test_many_events_are_a_small_page_that_opens(opened: Open, count: int, most: int) -> None:
    told = many(count)
    assert len(report(drawn(told))) <= most

    page = opened(told)
    page.keyboard.press("0")
    page.keyboard.press("+")
    assert page.inner_text("#count").replace(",", "") == f"{count + 2} events"
    assert page.locator("#all [role=option]").count() < 100, "only what is in view is in the page"


def test_each_run_leaves_its_report(tmp_path: Path, tab: Any) -> None:
    steps = "  - send: {alice: hello}\n  - expect: {alice: hello}\n"
    with ThreadPoolExecutor() as threads:  # the browser's driver has the event loop of this one
        result = threads.submit(play, steps, options=Options(runs=tmp_path)).result()
    assert result.folder is not None

    tab.goto((result.folder / "report.html").as_uri())
    tab.wait_for_selector("html[data-ready]")

    assert tab.inner_text("#verdict") == "pass"
    arrows = tab.evaluate("page.store.rows.filter(m => m.what === 'datagram').map(m => [m.source, m.target])")
    assert arrows == [["alice", "server"], ["server", "alice"]]
    assert drawn(read(result.folder / "history.jsonl")) == drawn(result.events)


def test_in_somebody_elses_page_stands_the_drawing_alone_as_tall_as_it_is(
    opened: Open, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    page = opened(FAILED)
    outer = tmp_path / "outer.html"
    outer.write_text(
        '<body style="height: 3000px"><iframe src="report.html#embed=dark" width="380"></iframe><script>'
        'addEventListener("message", (event) => (document.querySelector("iframe").height = event.data.tall))</script>'
    )
    page.goto(outer.as_uri())
    page.wait_for_selector("iframe[height]")
    inside = page.frames[1]
    inside.wait_for_selector("html[data-ready]")

    assert inside.locator("html").get_attribute("data-theme") == "dark"
    assert [inside.locator(part).is_visible() for part in ("header", "aside", ".filters", "#events", "#canvas", "#detail")] == [False] * 4 + [True] * 2  # fmt: skip
    whole = inside.evaluate("Math.ceil(page.diagram.whole)")
    expect(inside.locator("#canvas")).to_have_css("height", f"{whole}px")
    x, y = inside.evaluate("(([m]) => { const [x0, y0, x1, y1] = page.diagram.ends(m); return [(x0 + x1) / 2, (y0 + y1) / 2] })(page.store.rows.filter(m => m.what === 'data'))")  # fmt: skip
    inside.locator("#canvas").click(position={"x": x, "y": y})
    assert "alice → server" in inside.inner_text("#detail")
    page.evaluate("frames[0].location.replace(document.querySelector('iframe').src.replace('dark', 'light'))")
    inside.wait_for_selector("html[data-theme=light]")
    page.mouse.move(100, 100)
    page.mouse.wheel(0, 300)  # of which the drawing has no need
    page.wait_for_function("scrollY > 0")
