"""Mails about accounts: two languages, two forms, and values that stay text."""

from __future__ import annotations

import re
from email.message import EmailMessage
from email.policy import SMTP

import pytest

from hub.domain.mails import _TEXTS, TEMPLATES, language_of, write

VALUES = {
    "link": "https://hub.example/confirm#type=recovery&token_hash=abc", "code": "123456",
    "address": "mona@example.test", "organization": "Nile Home", "inviter": "Omar",
}  # fmt: skip
#: These ask for nothing, so there is no link to follow.
WITHOUT_LINK = {
    "reauthentication", "email_changed", "password_changed", "factor_added", "factor_removed",
    "recovery_code_used", "test",
}  # fmt: skip


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("locale", ["en", "ar"])
def test_every_mail_is_there_in_both_languages_as_text_and_html(template: str, locale: str) -> None:
    mail = write(template, VALUES, locale)  # type: ignore[arg-type]
    whole = mail.subject + mail.text + mail.html
    assert not re.search(r"\{\w+\}", mail.subject + mail.text), "a blank was left"
    assert ("https://hub.example/confirm" in mail.text) == (template not in WITHOUT_LINK)
    assert ('href="https://hub.example/confirm#type=recovery&amp;token_hash=abc"' in mail.html) == (
        template not in WITHOUT_LINK
    )
    assert (f'lang="{locale}"' in mail.html) and (('dir="rtl"' in mail.html) == (locale == "ar"))
    assert bool(re.search(r"[\u0600-\u06ff]", whole)) == (locale == "ar")
    if "{address}" in "".join(_TEXTS[template]["en"].lines):  # type: ignore[index]
        assert "mona@example.test" in mail.text and "mona@example.test" in mail.html


def test_values_add_no_header_no_paragraph_and_no_markup() -> None:
    evil = {**VALUES, "organization": "X\r\nBcc: all@example.test\n\n<img src=x onerror=alert(1)>{code}"}
    mail = write("invitation", evil, "en")
    assert "\n" not in mail.subject and "\r" not in mail.subject
    assert "\nBcc:" not in mail.text
    assert "<img" not in mail.html and "&lt;img" in mail.html
    assert "{code}" in mail.text, "a value is not filled in itself"
    message = EmailMessage(policy=SMTP)
    message["Subject"] = mail.subject
    assert message["Bcc"] is None


@pytest.mark.parametrize(
    ("locale", "language"),
    [("ar", "ar"), ("ar-EG", "ar"), ("AR_sa", "ar"), ("en", "en"), ("arn", "en"), ("", "en"), (None, "en")],
)
def test_languages(locale: str | None, language: str) -> None:
    assert language_of(locale) == language
