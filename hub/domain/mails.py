"""The mails about accounts: what each says, in English and Arabic, as text and as HTML. Pure.

A mail is a template's name and values (`link`, `code`, `address`, `organization`, `inviter`, `role`, `ip`);
what is missing is left out, and whatever the values hold stays text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import Final, Literal, get_args

import msgspec

Template = Literal[
    "recovery", "magiclink", "signup", "invite", "invitation", "email_change", "reauthentication",
    "already_member", "email_changed", "password_changed", "factor_added", "factor_removed",
    "recovery_code_used", "test",
]  # fmt: skip
TEMPLATES: Final[tuple[Template, ...]] = get_args(Template)
Language = Literal["en", "ar"]


class Mail(msgspec.Struct, frozen=True):
    subject: str
    text: str
    html: str


class _Words(msgspec.Struct, frozen=True):
    """`button` None: there is nothing to do."""

    subject: str
    lines: tuple[str, ...]
    button: str | None = None


_FOOT: Final[dict[Language, str]] = {
    "en": "If you did not ask for this, you can ignore this mail: nothing changes.",
    "ar": "إذا لم تطلب ذلك فتجاهل هذه الرسالة: لن يتغير شيء.",
}
_NOTICE: Final[dict[Language, str]] = {
    "en": "Was it not you? Change your password now and tell whoever runs this hub.",
    "ar": "لم تكن أنت؟ غيّر كلمة المرور الآن وأبلغ من يدير هذه المنصة.",
}
_CODE: Final[dict[Language, str]] = {"en": "Or enter this code:", "ar": "أو أدخل هذا الرمز:"}
_ONLY_CODE: Final[dict[Language, str]] = {"en": "Enter this code:", "ar": "أدخل هذا الرمز:"}
#: They tell of what was done; whoever did not do it must hear what to do.
_NOTICES: Final = frozenset(
    ("email_changed", "password_changed", "factor_added", "factor_removed", "recovery_code_used")
)

_TEXTS: Final[dict[Template, dict[Language, _Words]]] = {
    "recovery": {
        "en": _Words(
            "Choose a new password",
            ("Somebody asked for a new password for {address}. The link works once, for one hour.",),
            "Choose a new password",
        ),
        "ar": _Words(
            "اختر كلمة مرور جديدة",
            ("طُلبت كلمة مرور جديدة للحساب {address}. يعمل الرابط مرة واحدة خلال ساعة.",),
            "اختيار كلمة مرور جديدة",
        ),
    },
    "magiclink": {
        "en": _Words(
            "Your sign-in link", ("Sign in as {address}. The link works once, for one hour.",), "Sign in"
        ),
        "ar": _Words(
            "رابط تسجيل الدخول",
            ("سجّل الدخول بالحساب {address}. يعمل الرابط مرة واحدة خلال ساعة.",),
            "تسجيل الدخول",
        ),
    },
    "signup": {
        "en": _Words(
            "Confirm your address",
            ("Confirm that {address} is yours. The link works once, for one day.",),
            "Confirm my address",
        ),
        "ar": _Words(
            "أكّد عنوان بريدك",
            ("أكّد أن العنوان {address} لك. يعمل الرابط مرة واحدة خلال يوم.",),
            "تأكيد العنوان",
        ),
    },
    "invite": {
        "en": _Words(
            "You have been invited",
            ("An account was made for {address}. The link works once, for seven days.",),
            "Accept and choose a password",
        ),
        "ar": _Words(
            "لديك دعوة",
            ("أُنشئ حساب للعنوان {address}. يعمل الرابط مرة واحدة خلال سبعة أيام.",),
            "قبول واختيار كلمة مرور",
        ),
    },
    "invitation": {
        "en": _Words(
            "Join {organization}",
            (
                "{inviter} invites {address} to {organization}.",
                "The link works once, for seven days.",
            ),
            "Accept the invitation",
        ),
        "ar": _Words(
            "انضم إلى {organization}",
            ("يدعو {inviter} العنوان {address} إلى {organization}.", "يعمل الرابط مرة واحدة خلال سبعة أيام."),
            "قبول الدعوة",
        ),
    },
    "email_change": {
        "en": _Words(
            "Confirm your new address",
            ("{address} shall be the new address of an account here. The link works once, for one day.",),
            "Confirm the new address",
        ),
        "ar": _Words(
            "أكّد عنوانك الجديد",
            ("سيصبح {address} العنوان الجديد لحساب هنا. يعمل الرابط مرة واحدة خلال يوم.",),
            "تأكيد العنوان الجديد",
        ),
    },
    "reauthentication": {
        "en": _Words("Your confirmation code", ("With it you confirm a change to {address}, for one hour.",)),
        "ar": _Words("رمز التأكيد", ("به تؤكد تغييرًا في الحساب {address} خلال ساعة.",)),
    },
    "already_member": {
        "en": _Words(
            "You have an account already",
            ("Somebody tried to sign up with {address}, which has an account: sign in with it.",),
            "Sign in",
        ),
        "ar": _Words(
            "لديك حساب بالفعل",
            ("حاول أحدهم التسجيل بالعنوان {address} وله حساب: سجّل الدخول به.",),
            "تسجيل الدخول",
        ),
    },
    "email_changed": {
        "en": _Words("Your address was changed", ("Your account signs in with {address} from now on.",)),
        "ar": _Words("تغيّر عنوان حسابك", ("يسجّل حسابك الدخول من الآن بالعنوان {address}.",)),
    },
    "password_changed": {
        "en": _Words(
            "Your password was changed", ("{address} has a new password; other sessions have ended.",)
        ),
        "ar": _Words("تغيّرت كلمة مرورك", ("تغيّرت كلمة مرور {address} وانتهت الجلسات الأخرى.",)),
    },
    "factor_added": {
        "en": _Words("Two-factor sign-in is on", ("{address} now asks for a code of an authenticator app.",)),
        "ar": _Words("فُعّل التحقق بخطوتين", ("يطلب الحساب {address} الآن رمزًا من تطبيق المصادقة.",)),
    },
    "factor_removed": {
        "en": _Words("A second factor was removed", ("An authenticator app was removed from {address}.",)),
        "ar": _Words("أُزيل عامل تحقق", ("أُزيل تطبيق مصادقة من الحساب {address}.",)),
    },
    "recovery_code_used": {
        "en": _Words("A recovery code was used", ("Somebody signed in to {address} with a recovery code.",)),
        "ar": _Words("استُخدم رمز استرداد", ("سُجّل الدخول إلى {address} برمز استرداد.",)),
    },
    "test": {
        "en": _Words("This hub sends mail", ("The mail settings work.",)),
        "ar": _Words("هذه المنصة ترسل البريد", ("إعدادات البريد تعمل.",)),
    },
}
_BLANK: Final = re.compile(r"\{(\w+)\}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")
_STYLE: Final = (
    "font:16px/1.6 system-ui,-apple-system,'Segoe UI',Tahoma,sans-serif;color:#1c2733;"
    "max-width:34rem;margin:2rem auto;padding:0 1rem"
)
_BUTTON: Final = (
    "display:inline-block;background:#0b6b57;color:#ffffff;padding:.7rem 1.2rem;border-radius:8px;"
    "text-decoration:none"
)


def language_of(locale: str | None) -> Language:
    """Arabic for ar, ar-EG and the like; English for everybody else."""
    return "ar" if (locale or "").lower().replace("_", "-").split("-")[0] == "ar" else "en"


def write(template: Template, values: Mapping[str, str], locale: str | None) -> Mail:
    """The mail. Values keep no line breaks: a name cannot add a header or a paragraph."""
    language = language_of(locale)
    words = _TEXTS[template][language]
    clean = {name: _CONTROL.sub(" ", value)[:2000] for name, value in values.items()}

    def filled(text: str) -> str:
        return _BLANK.sub(lambda m: clean.get(m[1], ""), text)

    lines = [filled(line) for line in words.lines]
    link, code = clean.get("link"), clean.get("code")
    foot = (_NOTICE if template in _NOTICES else _FOOT)[language]
    if template == "test":
        foot = ""
    text, html = list(lines), [f"<p>{escape(line)}</p>" for line in lines]
    if link and words.button:
        text.append(link)
        html.append(f'<p><a href="{escape(link)}" style="{_BUTTON}">{escape(words.button)}</a></p>')
    if code:
        said = (_CODE if link and words.button else _ONLY_CODE)[language]
        text.append(f"{said} {code}")
        html.append(f'<p>{escape(said)} <strong dir="ltr">{escape(code)}</strong></p>')
    if foot:
        text.append(foot)
        html.append(f'<p style="color:#5b6875">{escape(foot)}</p>')
    direction = "rtl" if language == "ar" else "ltr"
    page = (
        f'<!doctype html><html lang="{language}" dir="{direction}"><head><meta charset="utf-8">'
        f"<title>{escape(filled(words.subject))}</title></head>"
        f'<body style="{_STYLE}">{"".join(html)}</body></html>'
    )
    return Mail(filled(words.subject), "\n\n".join(text) + "\n", page)
