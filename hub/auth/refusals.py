"""Refusals in GoTrue's words: clients of /auth/v1 branch on `error_code`."""

from __future__ import annotations

from typing import Any

from hub.errors import HubError


class AuthRefusal(HubError):
    """``code`` is GoTrue's, such as invalid_credentials; never a 5xx, which clients repeat for half a
    minute."""

    def __init__(
        self,
        code: str,
        message: str,
        status: int = 400,
        *,
        details: Any = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, details=details, retry_after_s=retry_after_s)
        self.code = code  # type: ignore[misc]
        self.status = status  # type: ignore[misc]
