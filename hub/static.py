"""The built web app: its page with a fresh nonce at every address that is not the API's, the API's
description at /docs, their files for a year."""

from __future__ import annotations

import mimetypes
import re
import secrets
from pathlib import Path
from typing import Final

from aiohttp import web

from hub.errors import NotFound
from hub.settings import Settings

DIST: Final = Path(__file__).parent / "web" / "dist"
NONCE_MARK: Final = "__CSP_NONCE__"
_MISSING = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>ConnectGain Hub</title></head>
<body><h1>ConnectGain Hub is running, its web app is not built</h1>
<p>Build it once: <code>make install</code> (or <code>npm run build</code> in <code>hub/web</code>),
then reload this page.</p>
<p>The API works without it.</p></body></html>
"""
# Not in every system's table, and text files need their charset.
_TYPES: Final = {
    ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".json": "application/json",
    ".svg": "image/svg+xml", ".woff2": "font/woff2", ".html": "text/html; charset=utf-8",
}  # fmt: skip
# Addresses that end like a file are not the app's pages.
_FILE = re.compile(r"\.[a-z0-9]{1,6}$", re.IGNORECASE)
_ENCODINGS: Final = (("br", ".br"), ("gzip", ".gz"))


def content_security_policy(nonce: str, *, images: str = "blob:") -> str:
    """What a page may load: our own files and nothing else. ``images`` names where else pictures may be."""
    return (
        "default-src 'none'; script-src 'self'; "
        f"style-src 'self' 'nonce-{nonce}'; style-src-attr 'unsafe-inline'; "
        f"img-src 'self' {images}; media-src 'self' blob:; connect-src 'self'; font-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'self'; require-trusted-types-for 'script'"
    )


class WebApp:
    """Serves one build folder from memory (a few MB), so that no path of a request ever reaches the disk."""

    def __init__(self, dist: Path = DIST) -> None:
        self.dist = dist
        self._files: dict[str, bytes] = {}
        self._pages: dict[str, str] = {}
        self._stamp: float | None = None
        self._read()

    def _read(self) -> None:
        index = self.dist / "index.html"
        try:
            self._stamp = index.stat().st_mtime
        except OSError:
            self._pages, self._files, self._stamp = {}, {}, None
            return
        self._pages = {p.stem: p.read_text(encoding="utf-8") for p in self.dist.glob("*.html")}
        self._files = {
            f"/assets/{p.name}": p.read_bytes() for p in (self.dist / "assets").iterdir() if p.is_file()
        }

    def _refresh(self) -> None:
        """A build that appeared or changed while we run is picked up."""
        try:
            stamp = (self.dist / "index.html").stat().st_mtime
        except OSError:
            stamp = None
        if stamp != self._stamp:
            self._read()

    def page(self, name: str = "index") -> web.Response:
        self._refresh()
        if name not in self._pages:
            return web.Response(
                text=_MISSING,
                status=503,
                content_type="text/html",
                headers={"Cache-Control": "no-store", "Content-Security-Policy": "default-src 'none'"},
            )
        nonce = secrets.token_urlsafe(16)
        return web.Response(
            text=self._pages[name].replace(NONCE_MARK, nonce),
            content_type="text/html",
            headers={
                "Cache-Control": "no-cache",
                # Swagger UI's style sheet has its icons in itself.
                "Content-Security-Policy": content_security_policy(
                    nonce, images="data:" if name == "docs" else "blob:"
                ),
                "Cross-Origin-Opener-Policy": "same-origin",
            },
        )

    async def handle_page(self, request: web.Request) -> web.StreamResponse:
        """Any address that a browser opens is the app's; its router decides."""
        if _FILE.search(request.path):
            raise NotFound("Nothing is here")
        if request.headers.get("Accept") and not _accepts_html(request.headers["Accept"]):
            raise NotFound("Nothing is here")
        return self.page("docs" if request.path == "/docs" else "index")

    async def handle_asset(self, request: web.Request) -> web.StreamResponse:
        name = request.path
        if name not in self._files:
            self._refresh()
        if name not in self._files:
            raise NotFound("No such file")
        suffix = Path(name).suffix
        headers = {
            "Cache-Control": "public, max-age=31536000, immutable",
            "Content-Type": _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream",
            "Vary": "Accept-Encoding",
        }
        accepted = request.headers.get("Accept-Encoding", "")
        for encoding, ending in _ENCODINGS:
            sibling = self._files.get(name + ending)
            if sibling is not None and encoding in accepted:
                return web.Response(body=sibling, headers={**headers, "Content-Encoding": encoding})
        return web.Response(body=self._files[name], headers=headers)


def _accepts_html(accept: str) -> bool:
    return "text/html" in accept or "*/*" in accept


def config_document(
    settings: Settings, version: str, anon_key: str | None, demo: dict[str, str | None] | None
) -> dict[str, object]:
    """`/config.json`: what the web app knows before anybody signs in. Nothing in it is secret."""
    return {
        "name": "ConnectGain Hub",
        "version": version,
        "anon_key": anon_key,
        "demo": demo if settings.demo else None,
    }
