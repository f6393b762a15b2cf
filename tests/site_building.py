"""The documentation, built once for all tests of a session."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SECONDS = 900  # of a busy machine; an idle core takes about ten


def built_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, as `make docs` builds it: a warning is an error."""
    pytest.importorskip("sphinx", reason="no Sphinx: pip install -e '.[docs]'")
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # shared by the processes of a session
    site = folder / "site"
    with FileLock(folder / "site.lock"):
        if not (site / "index.html").is_file():
            options = ["--quiet", "--fail-on-warning", "--keep-going", "--nitpicky", "--builder", "html"]
            command = [sys.executable, "-m", "sphinx", *options, "--doctree-dir", folder / "doctrees", DOCS, site]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
            if done.returncode:
                (site / "index.html").unlink(missing_ok=True)
            assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return site
