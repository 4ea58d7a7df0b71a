"""The demo organization as data: a furniture shop in Cairo whose customers are the sandbox's.

Times are minutes before the seeding. Nothing here is read once an installation has its own data.
"""

from __future__ import annotations

from typing import Literal

import msgspec

ORGANIZATION = "Nile Home"
TIMEZONE = "Africa/Cairo"
CURRENCY = "EGP"


class Person(msgspec.Struct, frozen=True):
    key: str
    first_name: str
    last_name: str
    role: Literal["OWNER", "ADMIN", "AGENT"]
    email: str


TEAM = (
    Person("dana", "Dana", "Mansour", "OWNER", "dana@nilehome.example"),
    Person("karim", "Karim", "Saleh", "ADMIN", "karim@nilehome.example"),
    Person("yara", "يارا", "فؤاد", "AGENT", "yara@nilehome.example"),
    Person("adam", "Adam", "Nabil", "AGENT", "adam@nilehome.example"),
)


class Line(msgspec.Struct, frozen=True):
    """One message: ``by`` is a member's key, or None when the customer wrote it; ``file`` one of
    hub/db/pictures.py."""

    minutes_ago: int
    by: str | None
    text: str
    status: str = "READ"
    file: str | None = None


class Customer(msgspec.Struct, frozen=True, kw_only=True):
    """A contact with its conversation. ``wa_id``/``bsuid`` are those of the sandbox's personas where they
    match."""

    key: str
    first_name: str
    last_name: str = ""
    wa_id: str | None = None
    bsuid: str | None = None
    emails: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    city: str | None = None
    country: str | None = None
    language: str = "en"
    company: str | None = None
    job_title: str | None = None
    custom_fields: dict[str, str] = {}
    opt_in: bool | None = True
    assignee: str | None = None
    conversation_tags: tuple[str, ...] = ()
    closed: bool = False
    priority: str | None = None
    lines: tuple[Line, ...] = ()


COMPANIES = (
    ("Delta Contracting", "deltacontracting.example", "Construction", "Cairo", "EG", 120),
    ("Cedar Hotels", "cedarhotels.example", "Hospitality", "Amman", "JO", 640),
    ("Carter & Sons", "carterandsons.example", "Interior design", "London", "GB", 18),
)

CUSTOMERS = (
    Customer(
        key="layla", first_name="ليلى", last_name="حسن", wa_id="201001383533", bsuid="EG.20010013835330",
        emails=("layla.hassan@example.com",), tags=("vip", "customer"),
        city="القاهرة", country="EG", language="ar",
        custom_fields={"preferred_branch": "المعادي"}, assignee="yara",
        conversation_tags=("delivery",), priority="HIGH",
        lines=(
            Line(2890, None, "السلام عليكم، عايزة أسأل عن كنبة «النيل» الزاوية"),
            Line(2884, "yara", "وعليكم السلام أستاذة ليلى 🌷 متوفرة بثلاث ألوان: بيج، كحلي، وزيتي",
                 file="sofa"),
            Line(2879, None, "حلو! والتوصيل لمدينة نصر بكام؟"),
            Line(2875, "yara", "التوصيل مجاني للطلبات فوق ٢٠٬٠٠٠ جنيه، ويوصل خلال ٣ أيام"),
            Line(1450, None, "تمام، حجزت الزيتي. رقم الطلب NH-20418"),
            Line(12, None, "هو التوصيل النهارده الساعة كام؟"),
            Line(11, None, "أنا في البيت من ٤ لـ ٨"),
        ),
    ),
    Customer(
        key="omar", first_name="Omar", last_name="Farouk", wa_id="201112223344", bsuid="EG.20111222334455",
        emails=("omar.farouk@deltacontracting.example",), tags=("b2b",), city="Alexandria", country="EG",
        company="Delta Contracting", job_title="Procurement manager", assignee="dana",
        conversation_tags=("quote",),
        lines=(
            Line(320, None, "Hi, we are furnishing 24 apartments in New Alamein."
                 " Can you quote for sofas and dining sets?"),
            Line(311, "dana", "Hello Omar! Gladly. I'll send a quote for 24 × Nile corner sofa"
                 " and 24 × Siwa dining set today."),
            Line(305, None, "Great. We need delivery before the end of January."),
            Line(64, "dana", "Quote sent to your e-mail: 1,920,000 EGP including delivery and assembly.",
                 "DELIVERED", "quote"),
        ),
    ),
    Customer(
        key="nour", first_name="نور", bsuid="EG.31415926535", tags=("designer",), language="ar", country="EG",
        lines=(
            Line(95, None, "هاي! شفت صور معرض التجمع على إنستجرام 😍"),
            Line(94, None, "عندكم خصم لمهندسين الديكور؟"),
        ),
    ),
    Customer(
        key="james", first_name="James", last_name="Carter", wa_id="447700900123", bsuid="GB.44770090012390",
        emails=("james@carterandsons.example",), tags=("b2b", "export"), city="London", country="GB",
        company="Carter & Sons", job_title="Interior designer", assignee="adam",
        conversation_tags=("export",),
        lines=(
            Line(1500, None, "Do you ship the Luxor side table to the UK?"),
            Line(1482, "adam", "We do, James: about 12 days by sea, customs paperwork included.",
                 "DELIVERED"),
            Line(1470, None, "Lovely. Two in walnut please. What do you need from me?"),
            Line(1466, "adam", "Just a delivery address and a VAT number.", "DELIVERED"),
        ),
    ),
    Customer(
        key="mariam", first_name="مريم", last_name="عادل", wa_id="971501234567", bsuid="AE.97150123456712",
        tags=("customer",), city="دبي", country="AE", language="ar", assignee="yara", closed=True,
        lines=(
            Line(4400, None, "وصلت الطاولة بس فيها خدش صغير", file="table"),
            Line(4391, "yara", "نعتذر جدًا أستاذة مريم، هنبعت فني بكرة بإذن الله"),
            Line(3010, None, "شكرًا ليكم، الفني كان ممتاز 🙏"),
            Line(3005, "yara", "العفو! سعداء بخدمتك دايمًا"),
        ),
    ),
    Customer(
        key="sami", first_name="Sami", last_name="Haddad", wa_id="962790000456", bsuid="JO.96279000045671",
        emails=("sami@cedarhotels.example",), tags=("b2b", "vip"), city="Amman", country="JO",
        company="Cedar Hotels", job_title="Head of purchasing", assignee="karim",
        conversation_tags=("contract",),
        lines=(
            Line(700, None, "We renew the lobby furniture every March. Who handles framework contracts?"),
            Line(690, "karim", "That would be me, Sami. Can we talk on Thursday?", "SENT"),
        ),
    ),
    Customer(
        key="huda", first_name="هدى", last_name="منصور", wa_id="201223456789",
        tags=("lead",), city="الجيزة", country="EG", language="ar", opt_in=None,
        lines=(Line(38, None, "مواعيد فرع الشيخ زايد إيه لو سمحتوا؟"),),
    ),
    Customer(
        key="peter", first_name="Peter", last_name="Novak", wa_id="420777123456",
        tags=("lead",), city="Prague", country="CZ",
        lines=(
            Line(210, None, "Is the Aswan armchair available in leather?"),
            Line(205, None, "And what would shipping to Prague cost?"),
        ),
    ),
    Customer(
        key="salma", first_name="Salma", last_name="Ezzat", wa_id="201009998877",
        tags=("customer",), city="Cairo", country="EG", assignee="adam", closed=True,
        lines=(
            Line(7300, None, "Thanks, the bookshelf looks wonderful!"),
            Line(7290, "adam", "So glad to hear it, Salma! A photo for our page would make our day 😊"),
        ),
    ),
)  # fmt: skip

QUICK_REPLIES = (
    ("hello", "Hello {{name}}, thank you for writing to Nile Home. How can I help?"),
    ("hours", "We are open Saturday to Thursday from 10:00 to 22:00, Friday from 14:00."),
    ("delivery", "Delivery takes 3 working days and is free above 20,000 EGP, {{name}}."),
    ("ترحيب", "أهلًا {{name}}، شكرًا لتواصلك مع نايل هوم. إزاي أقدر أساعدك؟"),
    ("مواعيد", "مواعيدنا من السبت للخميس ١٠ صباحًا – ١٠ مساءً، والجمعة من ٢ ظهرًا."),
)

#: What the sandbox's provider has approved from the start: name, language, end of its id there, components.
TEMPLATES = (
    ("hello_world", "en_US", "01",
     [{"type": "BODY", "text": "Welcome and congratulations!! This message shows that you can send."}]),
    ("order_update", "en", "02",
     [{"type": "BODY", "text": "Hello {{1}}, your order {{2}} is on its way."},
      {"type": "BUTTONS", "buttons": [{"type": "QUICK_REPLY", "text": "Thanks"},
                                      {"type": "QUICK_REPLY", "text": "Call me"}]}]),
    ("order_update", "ar", "03", [{"type": "BODY", "text": "مرحبًا {{1}}، طلبك رقم {{2}} في الطريق إليك."}]),
)  # fmt: skip

DEALS = (
    ("24 apartments, New Alamein", "omar", "proposal", 1_920_000, 60, 45),
    ("Lobby furniture framework", "sami", "negotiation", 850_000, 70, 100),
    ("Two Luxor side tables", "james", "qualified", 38_000, 80, 12),
    ("Corner sofa, olive", "layla", "closed_won", 42_500, 100, 0),
)

TASKS = (
    ("Call the driver about NH-20418", "layla", "yara", "HIGH", 2),
    ("Send fabric samples to Omar", "omar", "dana", "MEDIUM", 26),
    ("Prepare the framework contract", "sami", "karim", "HIGH", 70),
    ("Ask for the VAT number", "james", "adam", "LOW", -20),
)

NOTES = (
    ("omar", "dana", "Decides together with his finance director. Prefers one delivery per building."),
    ("layla", "yara", "بتفضّل التواصل بعد الساعة ٤ مساءً."),
    ("sami", "karim", "Contract year starts in March; last supplier missed two deadlines."),
)

STAGES = (
    {"id": "lead", "name": "Lead", "color": "#8a93a6"},
    {"id": "qualified", "name": "Qualified", "color": "#3b82c4"},
    {"id": "proposal", "name": "Proposal", "color": "#7a5fc0"},
    {"id": "negotiation", "name": "Negotiation", "color": "#c28a1e"},
    {"id": "closed_won", "name": "Won", "color": "#2f9e6e", "outcome": "won"},
    {"id": "closed_lost", "name": "Lost", "color": "#c0524f", "outcome": "lost"},
)
