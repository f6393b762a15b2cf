"""What a page may do: run its own script, use its own style, and nothing else."""

from __future__ import annotations

import base64
import hashlib


def content_policy(style: str, script: str) -> str:
    """Content-Security-Policy of a page whose only style is `<style>style</style>`, whose only script likewise.

    They are named by their SHA-256 (CSP 3, section 6.6.2), which works in a file without a server: markup that comes in
    by a name or a number can neither run, nor load, nor send anything.
    """
    return (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
