"""Sphinx: the documentation as a site that needs neither a network nor a server. `make docs` builds it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

project = "drivecast"
author = "the maintainers of drivecast"
copyright = "the maintainers of drivecast, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}

nitpick_ignore_regex = [("py:.*", ".*")]  # types of other packages have no page here

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = "drivecast"
html_static_path = ["course/widgets"]
html_css_files = ["widgets.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
napoleon_use_rtype = False

WIDGETS = {  # what each page of the course runs, after canvas.js
    "course/energies": ["ellipse.js", "prototypes.js", "layers.js", "collapse.js"],
    "course/one-car": ["car-model.js", "one-car-data.js", "one-car.js"],
    "course/planning": ["plans.js"],
    "course/joint-embeddings": ["layers.js", "embedding-model.js", "joint-embedding.js"],
}
MODEL = "pretrained:highway"  # of the page about one car


def link_readme(app: Sphinx, document: nodes.document) -> None:
    """Links to the README, which lies outside of this folder, lead to the page that includes it."""
    for link in document.findall(pending_xref):
        if link.get("reftarget") == str(ROOT / "README"):
            link["reftarget"] = "readme"


def write_data(app: Sphinx) -> None:
    """The scene and the model that the page about one car runs, as a script: a page from a file may read nothing."""
    if app.builder.format != "html":
        return
    from drivecast.scripts.tools.course_scene import stored_model

    scene = json.loads((ROOT / "docs/course/one-car.json").read_text(encoding="utf-8"))
    target = Path(app.outdir) / "_static" / "one-car-data.js"
    target.parent.mkdir(parents=True, exist_ok=True)
    data = json.dumps({"scene": scene, "model": stored_model(MODEL)})
    target.write_text(f"window.courseOneCar = {data};\n", encoding="utf-8")


def add_widgets(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """The scripts of a page, in their order."""
    for name in ["canvas.js", *WIDGETS[page]] if page in WIDGETS else []:
        app.add_js_file(name)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_lexer("mermaid", TextLexer)
    app.connect("doctree-read", link_readme)
    app.connect("builder-inited", write_data)
    app.connect("html-page-context", add_widgets)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
