"""The documentation as a site: it builds without a warning, and its pages need nothing but themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from site_building import DOCS, built_site


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    return built_site(tmp_path_factory)


def test_every_page_is_in_the_site(site):
    pages = [page.relative_to(DOCS).with_suffix(".html") for page in DOCS.rglob("*.md") if "_build" not in page.parts]
    assert len(pages) > 15
    assert not [page for page in pages if not (site / page).is_file()]


def test_no_page_asks_for_anything_from_the_network(site):
    found = []
    for file in [*site.rglob("*.html"), *site.rglob("*.css")]:
        text = file.read_text(encoding="utf-8")
        loads = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=\"([^\"]+)\"", text)
        loads += re.findall(r"<link[^>]*\shref=\"([^\"]+)\"", text) + re.findall(r"url\(\s*['\"]?([^'\")]+)", text)
        found += [(file.name, load) for load in loads if re.match(r"(https?:)?//", load)]
    assert not found


def test_links_within_the_site_lead_somewhere(site):
    missing = []
    for page in site.rglob("*.html"):
        for link in re.findall(r"(?:href|src)=\"([^\"#?]+)[^\"]*\"", page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", link) and not (page.parent / link).exists():
                missing.append((page.name, link))
    assert not missing


def test_a_link_to_a_file_of_the_repository_gives_the_file(site):
    (link,) = re.findall(r"href=\"([^\"]*keeping_clear\.py)\"", (site / "forecasts.html").read_text(encoding="utf-8"))
    assert "def bounds" in (site / link).read_text(encoding="utf-8")
