"""The picture of a play (`plays/NAME.svg`) becomes the play's report where `make site` has made one (docs/website.py): the drawing of the
report in a frame, which site.js puts in the picture's place. Without scripts, and on paper, the picture stays."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxTranslator

from docs.pages import KO, address, between

WHOLE = {"en": "Open the whole report: every event, the scenario, filters, keys", "ko": "보고서 전체 열기: 모든 사건, 시나리오, 필터, 단축키"}  # fmt: skip


class play(nodes.General, nodes.Element):
    """A figure: the picture of a play, and where its report is ("" without)."""


class Plays(SphinxTransform):
    default_priority = 10

    def apply(self, **_: Any) -> None:
        for image in list(self.document.findall(nodes.image)):
            path = Path(image["uri"])
            if path.parent.name != "plays" or path.suffix != ".svg" or len(image.parent.children) > 1:
                continue
            figure = play("", name=path.stem, alt=image["alt"])
            image.parent.replace_self(figure)
            figure += image


def _report(translator: SphinxTranslator, node: play) -> str:
    app = translator.builder.app
    site = Path(app.outdir).parent if Path(app.srcdir) == KO else Path(app.outdir)
    if not (site / "plays" / f"{node['name']}.html").is_file():
        return ""
    here = address(Path(app.srcdir) / f"{translator.builder.current_docname}.md")  # type: ignore[attr-defined]
    return between(here, f"plays/{node['name']}.html")


def _open(translator: Any, node: play) -> None:
    report = _report(translator, node)
    live = f' data-report="{html.escape(report)}"' if report else ""
    translator.body.append(f'<figure class="play"{live}>\n')


def _close(translator: Any, node: play) -> None:
    if report := _report(translator, node):
        words = WHOLE[translator.builder.config.language]
        translator.body.append(f'<figcaption><a href="{html.escape(report)}">{words}</a></figcaption>')
    translator.body.append("</figure>\n")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(play, html=(_open, _close))
    app.add_transform(Plays)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
