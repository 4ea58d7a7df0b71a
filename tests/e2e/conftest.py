"""Fixtures of the browser tests, here so that all modules of a worker share one running product."""

from tests.e2e.web import chromium, desk, product

__all__ = ["chromium", "desk", "product"]
