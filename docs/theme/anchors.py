"""A heading has the same anchor in the site as on GitHub, in Korean too, where docutils would call it id3."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform


class SlugsFirst(SphinxTransform):
    default_priority = 750  # MyST has added its slugs by then

    def apply(self, **_: Any) -> None:
        for section in self.document.findall(nodes.section):
            if (slug := section.get("slug")) in section["ids"]:
                section["ids"].remove(slug)
                section["ids"].insert(0, slug)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_transform(SlugsFirst)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
