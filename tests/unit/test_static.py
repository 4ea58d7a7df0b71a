"""What the app's page may load and who may frame it."""

from __future__ import annotations

from hub.static import content_security_policy


def test_X22_the_policy_of_the_apps_page() -> None:
    policy = dict(part.strip().split(" ", 1) for part in content_security_policy("abc").split(";"))
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
