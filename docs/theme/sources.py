"""Links out of docs/ into the repository lead to pages of the site: `source/services/echo.py.html` shows the file in colours,
`source/scenarios.html` lists a folder, and `source/README.md.html` is read as what it is. Links to a page of the other edition lead there."""

from __future__ import annotations

import html
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from docutils import nodes
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.anchors import anchors_plugin
from myst_parser.slugs import github_slugify
from pygments.lexers import get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from docs.pages import ROOT, address, between, counterpart, edition, every, is_page, links

LARGEST = 200_000  # bytes of a file in a folder that is shown
WORDS = {
    "en": {"folder": "Folder of the repository", "file": "File of the repository", "in": "in"},
    "ko": {"folder": "저장소의 폴더", "file": "저장소의 파일", "in": "위치:"},
}


@cache
def shown() -> tuple[Path, ...]:
    """What has a page: the files and folders to which pages link, the files in such folders, and the folders of all these."""
    found: set[Path] = set()
    wanted = list(every())
    while wanted:
        for path in {path for _, path, _ in links(wanted.pop())} - found:
            if not path.exists() or not path.is_relative_to(ROOT) or is_page(path):
                continue
            found |= {path, *(_files(path) if path.is_dir() else ())}
            if path.suffix == ".md":
                wanted.append(path)
    files = {path for path in found if path.is_file()}
    folders = {each for path in found for each in (path, *path.parents) if each.is_dir()}
    return tuple(sorted(files | {folder for folder in folders if folder.is_relative_to(ROOT)} - {ROOT}))


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part == "__pycache__" or part.startswith(".") for part in path.relative_to(folder).parts)
        if (
            path.is_file()
            and not hidden
            and path.stat().st_size <= LARGEST
            and b"\0" not in path.read_bytes()
        ):
            yield path


def name(path: Path) -> str:
    """Of the page of a file or folder, as Sphinx calls it."""
    return f"source/{path.relative_to(ROOT).as_posix()}"


def _address(app: Sphinx, here: str, path: Path) -> str | None:
    """The link from a page of this edition (its name) to what is at a path of the repository; None where it has no page."""
    if is_page(path):
        there = counterpart(path) if edition(path) != app.srcdir and counterpart(path).is_file() else path
        return between(address(Path(app.srcdir) / f"{here}.md"), address(there))
    return app.builder.get_relative_uri(here, name(path)) if path in shown() else None


class Outward(SphinxTransform):
    """Links that leave the folder of this edition."""

    default_priority = 5

    def apply(self, **_: Any) -> None:
        here = Path(self.env.doc2path(self.env.docname))
        for kind in (addnodes.pending_xref, addnodes.download_reference):
            for link in list(self.document.findall(kind)):
                if link["reftype"] == "myst":
                    self._lead(here, link)

    def _lead(self, here: Path, link: nodes.Element) -> None:
        target, _, anchor = link["reftarget"].partition("#")
        anchor = anchor or link.get("reftargetid") or ""
        if link.get("refdomain") == "doc":  # MyST has made a page's name of it
            path = (Path(self.app.srcdir) / f"{target}.md").resolve()
        else:
            path = (here.parent / target).resolve()
        if is_page(path):
            uri = None if edition(path) == edition(here) else between(address(here), address(path))
        else:
            uri = _address(self.app, self.env.docname, path)
        if uri is None:
            return  # a page of this edition, or nothing, of which MyST will complain
        reference = nodes.reference("", "", internal=True, refuri=f"{uri}#{anchor}" if anchor else uri)
        inner = link.children[0]
        reference += inner.children if isinstance(inner, nodes.inline) else [inner]
        link.replace_self(reference)


def _pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    words = WORDS[app.config.language]
    for path in shown():
        here, title = name(path), path.relative_to(ROOT).as_posix()
        above = f" {words['in']} {_link(app, here, path.parent)}" if path.parent != ROOT else ""
        told = f'<p class="where">{words["folder" if path.is_dir() else "file"]}{above}</p>'
        heading = f"<h1>{html.escape(title)}</h1>{told}"
        if path.is_dir():
            inside = "".join(f"<li>{_link(app, here, each)}</li>" for each in shown() if each.parent == path)
            body = f"{heading}<ul>{inside}</ul>"
        elif path.suffix == ".md":
            body = _rendered(app, here, path)
        else:
            body = f"{heading}{_coloured(app, path.read_text(encoding='utf-8'), path.name)}"
        yield here, {"title": title, "body": body, "parents": []}, "page.html"


def _link(app: Sphinx, here: str, path: Path) -> str:
    text = html.escape(path.name) + ("/" if path.is_dir() else "")
    return f'<a class="reference internal" href="{_address(app, here, path)}"><code class="docutils literal">{text}</code></a>'


def _coloured(app: Sphinx, text: str, file: str) -> str:
    try:
        lexer = get_lexer_for_filename(file, text).aliases[0]
    except (ClassNotFound, IndexError):
        lexer = "text"
    return _block(app, text, lexer, linenos="inline")


def _block(app: Sphinx, text: str, lexer: str, **options: Any) -> str:
    return str(app.builder.highlighter.highlight_block(text, lexer or "text", **options))  # type: ignore[attr-defined]


def _rendered(app: Sphinx, here: str, path: Path) -> str:
    """Markdown that is no page of docs/, such as the README."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.use(anchors_plugin, max_level=6, slug_func=github_slugify)
    markdown.add_render_rule(
        "fence", lambda _, tokens, at, *rest: _block(app, tokens[at].content, tokens[at].info)
    )
    markdown.add_render_rule(
        "code_block", lambda _, tokens, at, *rest: _block(app, tokens[at].content, "text")
    )
    markdown.add_render_rule(
        "code_inline",
        lambda _, tokens, at, *rest: (
            f'<code class="docutils literal">{html.escape(tokens[at].content)}</code>'
        ),
    )
    markdown.add_render_rule("table_open", lambda *_: '<div class="table-wrapper"><table class="docutils">')
    markdown.add_render_rule("table_close", lambda *_: "</table></div>")
    tokens = markdown.parse(path.read_text(encoding="utf-8"))
    for token in (child for each in tokens for child in each.children or ()):
        _turn(app, here, path, token)
    return str(markdown.renderer.render(tokens, markdown.options, {}))


def _turn(app: Sphinx, here: str, path: Path, token: Token) -> None:
    """A link or a picture of such a page, to where it is in the site."""
    attribute = {"link_open": "href", "image": "src"}.get(token.type, "")
    target, _, anchor = str(token.attrs.get(attribute, "")).partition("#")
    if not target or "://" in target:
        return
    there = (path.parent / unquote(target)).resolve()
    if token.type == "image":
        pictures = Path(app.outdir) / "_images"
        pictures.mkdir(exist_ok=True)
        shutil.copy(there, pictures)
        token.attrs["src"] = app.builder.get_relative_uri(here, "_images/").removesuffix(".html") + there.name
    elif uri := _address(app, here, there):
        token.attrs["href"] = f"{uri}#{anchor}" if anchor else uri
    else:
        raise ValueError(f"{path.relative_to(ROOT)} links to {target}, which is not there")


def _again(app: Sphinx) -> None:
    every.cache_clear()
    shown.cache_clear()


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_transform(Outward)
    app.connect("builder-inited", _again)
    app.connect("html-collect-pages", _pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
