"""The site as its readers have it: opened from files, in two languages, on a screen and on a phone, and every link leads somewhere."""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from docs import plays, website
from docs.pages import DOCS, KO, ROOT, address, counterpart, edition, every
from docs.theme.searching import PARTICLES, stem, terms
from tests.docs.conftest import Open

LESSON = "lessons/07-the-second-client-waits.html"
LOOKED_AT = [
    "index.html",
    "lessons/index.html",
    LESSON,
    "scenario-language.html",
    "source/README.md.html",
    "source/services/echo.py.html",
    "source/scenarios.html",
    "ko/index.html",
    f"ko/{LESSON}",
    "ko/seeing.html",
    "ko/terms.html",
    "search.html?q=backlog",
    "ko/search.html?q=소켓을",
]

pytestmark = pytest.mark.timeout(300)  # the first of these tests makes it


class Page(HTMLParser):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.language = ""
        self.anchors: set[str] = set()
        self.links: list[tuple[str, str]] = []  # the tag, and where it leads
        self.words: list[str] = []
        self._code = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = dict(attrs)
        self.language = self.language or has.get("lang") or ""
        self.anchors |= {str(has[name]) for name in ("id", "name") if has.get(name)}
        self.links += [(tag, str(has[name])) for name in ("href", "src", "data-report") if has.get(name)]
        self._code += tag in ("script", "style", "code", "pre")

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag in ("script", "style", "code", "pre")

    def handle_data(self, data: str) -> None:
        if not self._code:
            self.words.append(data)


@cache
def read(path: Path) -> Page:
    return Page(path)


def pages(site: Path) -> list[Path]:
    return [path for path in site.rglob("*.html") if path.parent.name != "plays"]


def test_every_link_leads_to_a_file_and_an_anchor_that_are_there(site: Path) -> None:
    broken = []
    for path in pages(site):
        for tag, link in read(path).links:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto", "data") or (tag == "use" and not parts.path):
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not there.is_file():
                broken.append(f"{path.relative_to(site)}: {link}")
            elif there.suffix == ".html" and there.parent.name != "plays":
                anchor = unquote(parts.fragment)
                if anchor and anchor not in read(there).anchors:
                    broken.append(f"{path.relative_to(site)}: {link} (no such anchor)")
    assert broken == []


def test_what_leads_out_is_a_link_of_good_form_and_nothing_is_loaded_from_there(site: Path) -> None:
    outward = {(tag, link) for path in pages(site) for tag, link in read(path).links if "://" in link}

    assert {tag for tag, _ in outward} <= {"a"}
    assert [link for _, link in sorted(outward) if not re.fullmatch(r"https://[\w.-]+\.[a-z]+(/\S*)?|http://(127\.0\.0\.1|localhost):\d+\S*", link)] == []  # fmt: skip


def test_every_page_of_the_docs_is_in_the_site_and_in_the_tree_at_its_side(site: Path) -> None:
    for page in every():
        root = "ko/index.html" if edition(page) == KO else "index.html"
        tree = {(site / root).parent / unquote(link) for _, link in read(site / root).links}
        assert (site / address(page)).is_file()
        assert page == edition(page) / "index.md" or site / address(page) in tree, page


def test_the_table_of_lessons_names_each_by_its_title() -> None:
    for page in sorted((DOCS / "lessons").glob("[0-9]*.md")):
        for lesson in (page, counterpart(page)):
            number, title = re.match(r"# (\d+)\. (.*)", lesson.read_text(encoding="utf-8")).groups()  # type: ignore[union-attr]
            row = f"| {number} | [{title}]({lesson.name}) |"
            assert row in (lesson.parent / "index.md").read_text(encoding="utf-8"), row


def test_each_page_leads_to_itself_in_the_other_language_or_says_that_there_is_none(site: Path) -> None:
    for page in every():
        made = read(site / address(page))
        assert made.language == ("ko" if edition(page) == KO else "en")
        other = counterpart(page)
        exists = other.is_file()
        there = site / address(other if exists else counterpart(edition(page) / "index.md"))
        found = {((site / address(page)).parent / link).resolve() for tag, link in made.links if tag == "a"}
        assert there in found
        only = "이 문서는 영어로만 있습니다" if edition(page) == DOCS else "this page is in Korean only"
        assert any(only in text for text in made.words) != exists, page


def test_no_mark_of_markdown_is_left_in_what_is_read(site: Path) -> None:
    """Such as `**` before a Korean particle, which closes nothing where a sign stands before it."""
    left = [(address(page), text) for page in every() for text in read(site / address(page)).words if re.search(r"\*\*|(?<!\S)\*(?!\.)\S|\]\(|\[`", text)]  # fmt: skip
    assert left == []


def test_a_file_to_which_a_page_links_is_a_page(site: Path, visit: Open) -> None:
    page = visit(LESSON)

    page.get_by_role("link", name="services/echo.py").first.click()

    assert page.inner_text("h1").startswith("services/echo.py")
    assert (ROOT / "services" / "echo.py").read_text().splitlines()[-1] in page.inner_text(".highlight")
    page.get_by_role("link", name="services/").first.click()
    assert "eventloop.py" in page.inner_text("article")


@pytest.mark.parametrize(
    ("address", "asked", "found"),
    [
        ("index.html", "backlog", LESSON),
        ("index.html", "contracts", "contracts.html"),
        ("ko/index.html", "소켓", f"ko/{LESSON}"),
        ("ko/index.html", "소켓을", f"ko/{LESSON}"),
        ("ko/index.html", "대기열에서는", f"ko/{LESSON}"),
        ("ko/index.html", "프로세스 accept()를", f"ko/{LESSON}"),
        ("ko/index.html", "줄", f"ko/{LESSON}"),
    ],
)
def test_words_are_found_in_both_languages_with_what_stands_around_them(
    visit: Open, site: Path, address: str, asked: str, found: str
) -> None:
    page = visit(address)
    page.fill(".sidebar-search", asked)
    page.keyboard.press("Enter")

    result = page.locator("#search-results li").filter(has=page.locator(f"a[href$='{Path(found).name}']"))
    result.first.wait_for()
    assert result.first.locator("mark").count() >= 1
    other = page.locator(".search-other a").evaluate("link => new URL(link.href).searchParams.get('q')")
    assert other == asked
    result.first.locator("a").click()
    assert page.url.startswith((site / found).as_uri())


@pytest.mark.parametrize(
    ("word", "without"),
    [
        ("소켓을", "소켓"),
        ("서버에서는", "서버"),
        ("클라이언트로부터", "클라이언트로"),
        ("줄을", "줄"),
        ("을", "을"),
    ],
)
def test_a_korean_word_is_found_without_its_particle(word: str, without: str) -> None:
    assert stem(word) == without
    assert {word, without} <= terms(word)
    assert list(PARTICLES) == sorted(PARTICLES, key=len, reverse=True)


def test_the_picture_of_a_play_is_its_report_where_plays_can_be_made(
    visit: Open, site: Path, why_no_netns: str | None
) -> None:
    from playwright.sync_api import expect

    page = visit(LESSON)
    if why_no_netns is not None:
        assert not list((site / "plays").iterdir())
        assert page.locator("figure.play img").is_visible()
        pytest.skip(f"the picture stays: {why_no_netns}")
    (name,) = website.plays(1)
    (shows,) = [each for each in every() if name in plays.shown(each) and edition(each) == DOCS]
    page = visit(address(shows))

    figure = page.locator(f"figure.play[data-report$='{name}.html']")
    figure.scroll_into_view_if_needed()
    page.wait_for_selector("figure.live iframe")
    drawing = page.frames[1]
    drawing.wait_for_selector("html[data-ready]")
    assert not figure.locator("img").is_visible()
    whole = drawing.evaluate("Math.ceil(page.diagram.whole)")
    expect(drawing.locator("#canvas")).to_have_css("height", f"{whole}px")  # nothing of it is cut off
    assert drawing.locator("html").get_attribute("data-theme") == "light"
    page.evaluate("document.body.dataset.theme = 'dark'")
    drawing.wait_for_selector("html[data-theme=dark]")
    page.emulate_media(media="print")
    assert figure.locator("img").is_visible()
    page.emulate_media(media="screen")
    figure.get_by_role("link").click()
    page.wait_for_selector("html[data-ready]")
    assert page.locator("#scenario li").count() > 3


def test_without_scripts_the_picture_stays(visit: Open) -> None:
    page = visit(LESSON, java_script_enabled=False)

    assert page.locator("figure.play img").is_visible()


def test_nothing_is_wider_than_a_phone(visit: Open, site: Path) -> None:
    page = visit("index.html", width=390)
    wide = []
    for each in [*(address(path) for path in every()), *LOOKED_AT]:
        file, _, query = each.partition("?")
        page.goto(f"{(site / file).as_uri()}?{query}")
        if page.evaluate("document.documentElement.scrollWidth") > 390:
            wide.append(each)
    assert wide == []


def test_long_lines_scroll_in_their_block_or_are_wrapped(visit: Open) -> None:
    page = visit(LESSON, width=390)
    block = page.locator(".highlight pre").first
    wide = "block => block.scrollWidth > block.clientWidth"

    assert block.evaluate(wide)
    page.get_by_role("button", name="Wrap lines").first.click()
    assert not block.evaluate(wide)


def test_what_is_copied_is_what_is_typed(visit: Open) -> None:
    page = visit(LESSON, permissions=["clipboard-read", "clipboard-write"])

    block = page.locator(".highlight", has_text="ss -tln").first
    block.hover()
    block.locator(".copybtn").click()
    page.wait_for_selector(".copybtn.success")

    assert page.evaluate("navigator.clipboard.readText()") == "ss -tln sport = :5001\nss -tn sport = :5001"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_no_serious_fault(visit: Open, theme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    wrong = []
    for each in LOOKED_AT:
        page = visit(each, width=width, theme=theme)
        if "search" in each:
            page.wait_for_selector("#search-results mark")
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 200) == (theme == "dark"), each
        found = axe.run(page, options={"resultTypes": ["violations"], "preload": False}).response[
            "violations"
        ]
        wrong += [
            (each, fault["id"], node["html"][:200], node["failureSummary"][:300])
            for fault in found
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"][:3]
        ]
        page.context.close()
    assert wrong == []
