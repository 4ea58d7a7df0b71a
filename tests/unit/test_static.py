"""What the app's page may load and who may frame it."""

from __future__ import annotations

import re
from pathlib import Path

from hub.static import NONCE_MARK, WebApp, content_security_policy


def directives(policy: str) -> dict[str, str]:
    return dict(part.strip().split(" ", 1) for part in policy.split(";"))  # type: ignore[misc]


def test_X22_the_policy_of_the_apps_page() -> None:
    policy = directives(content_security_policy("abc"))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self' 'nonce-abc'",
        "style-src-attr": "'unsafe-inline'",
        "img-src": "'self' blob:",
        "media-src": "'self' blob:",
        "connect-src": "'self'",
        "font-src": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "require-trusted-types-for": "'script'",
    }


def test_X22_the_policy_of_the_docs_page_differs_in_pictures_alone(tmp_path: Path) -> None:
    """Swagger UI's style sheet has its icons in itself; nothing else is let in, no other host at all."""
    (tmp_path / "assets").mkdir()
    for name in ("index", "docs"):
        (tmp_path / f"{name}.html").write_text(f'<style nonce="{NONCE_MARK}">{name}</style>')
    pages = WebApp(tmp_path)
    docs, app = pages.page("docs"), pages.page()
    assert docs.text is not None and ">docs<" in docs.text
    found, usual = (directives(one.headers["Content-Security-Policy"]) for one in (docs, app))
    assert found.pop("img-src") == "'self' data:"
    assert usual.pop("img-src") == "'self' blob:"
    (nonce,) = re.findall(r'nonce="([^"]+)"', docs.text)
    assert found.pop("style-src") == f"'self' 'nonce-{nonce}'"
    assert usual.pop("style-src") != f"'self' 'nonce-{nonce}'"
    assert found == usual
