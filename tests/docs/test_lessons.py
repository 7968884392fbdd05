"""The course: what its pages show is so, and its exercises can be done."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs import plays, transcripts
from docs.pages import DOCS, counterpart
from tests.docs.conftest import environment

LESSONS = DOCS / "lessons"
PAGES = sorted(LESSONS.glob("[0-9][0-9]-*.md"))
SECTIONS = ("See it", "What happens", "By hand", "Change it, and watch", "Exercise", "Where it is written")
SECTIONS_KO = ("보기", "무슨 일이 일어나는가", "직접 해 보기", "바꿔 보고 관찰하기", "연습 문제", "출처")
EXERCISES, SOLUTIONS = DOCS / "exercises", DOCS / "solutions"


def name(page: Path) -> str:
    return page.stem


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_a_page_shows_is_so(page: Path, namespaces: None) -> None:
    done = transcripts.apart([str(page)])
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_python_session_can_be_typed_as_it_stands(page: Path) -> None:
    """An empty line in a class or a function ends it at the prompt."""
    for block in transcripts.blocks(page.read_text(encoding="utf-8")):
        if block.language == "pycon":
            assert not re.search(r"^\.\.\. *\n\.\.\. ", "\n".join(block.lines), re.MULTILINE), (
                f"line {block.line}"
            )


def sections(path: Path) -> list[str]:
    return re.findall(r"^## (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_lesson_is_seen_explained_done_changed_and_exercised(page: Path) -> None:
    assert tuple(sections(page)) == SECTIONS
    assert tuple(sections(counterpart(page))) == SECTIONS_KO


def test_lessons_are_numbered_and_each_has_its_exercise_its_solution_and_its_korean_edition() -> None:
    numbers = [page.name[:2] for page in PAGES]
    assert numbers == [f"{n:02}" for n in range(1, len(PAGES) + 1)]
    assert [folder.name[:2] for folder in sorted(EXERCISES.iterdir())] == numbers
    assert sorted(p.name for p in SOLUTIONS.iterdir()) == sorted(p.name for p in EXERCISES.iterdir())
    assert sorted(p.name for p in counterpart(LESSONS).glob("[0-9]*.md")) == [page.name for page in PAGES]
    for page in PAGES:
        for edition in (page, counterpart(page)):
            assert re.match(rf"# {int(page.name[:2])}\. \S", edition.read_text(encoding="utf-8")), edition


def asked(page: Path) -> list[str]:
    """The command by which a lesson's exercise is judged."""
    text = page.read_text(encoding="utf-8").partition("## Exercise")[2]
    found = re.search(r"^\$ (socklab check .*)$", text, re.MULTILINE)
    assert found, f"{page}: its exercise is judged by no socklab check"
    return found[1].split()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_an_exercise_is_wrong_as_it_is_handed_out_and_right_when_it_is_solved(
    page: Path, tmp_path: Path
) -> None:
    """What the starter gets, the page shows; it is run there."""
    shown = page.read_text(encoding="utf-8").partition("## Exercise")[2].partition("```\n")[0]
    (solution,) = SOLUTIONS.glob(f"{page.name[:2]}-*")
    where = tmp_path / "solved"
    shutil.copytree(solution, where)
    done = subprocess.run(
        [sys.executable, "-m", *asked(page)], cwd=where, capture_output=True, text=True, env=environment()
    )
    assert "✗" in shown
    assert done.returncode == 0, done.stdout + done.stderr


def test_solutions_fill_gaps_and_leave_none() -> None:
    for starter in EXERCISES.rglob("*.py"):
        solution = SOLUTIONS / starter.relative_to(EXERCISES)
        assert "TODO" in starter.read_text(encoding="utf-8"), starter
        assert "TODO" not in solution.read_text(encoding="utf-8"), solution


def test_every_picture_is_of_a_play_of_the_library_and_is_shown_somewhere() -> None:
    shown = {name for page in PAGES for name in plays.shown(page)}
    assert {path.stem for path in plays.PICTURES.glob("*.svg")} == shown
    for each in shown:
        assert plays.scenario(each).is_file()
