"""What happens at the provider: a send is accepted and gets its receipts, a customer speaks, the hub
reads."""

from __future__ import annotations

import asyncio
import secrets
from functools import partial
from random import Random
from typing import Any

import msgspec
import structlog

from hub.sandbox.clock import Timers, VirtualClock, iso
from hub.sandbox.config import Account, SandboxConfig
from hub.sandbox.faults import Fault, Faults
from hub.sandbox.journal import Acked, Marked, Moved, Said, Sent, Template
from hub.sandbox.personas import Persona
from hub.sandbox.state import ERRORS, Message, State
from hub.sandbox.webhooks import Courier, Event

log = structlog.get_logger()

SENT_AFTER_S = 0.05
TEMPLATE_REVIEW_S = 10.0
TYPING_S = 25.0
REPLIES_PER_10_MIN = 10
"""A customer who answers everything and a bot that does the same would never stop."""
RATE_PER_S = 80
PAIR_BURST = 45
PAIR_INTERVAL_S = 6.0
Json = dict[str, Any]


class Full(Exception):
    """Too many webhooks wait for the hub."""


class _Bucket:
    """Tokens by sandbox time."""

    __slots__ = ("at", "tokens")

    def __init__(self, size: float, now: float) -> None:
        self.tokens, self.at = size, now

    def take(self, size: float, per_s: float, now: float) -> bool:
        self.tokens = min(size, self.tokens + max(0.0, now - self.at) * per_s)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Provider:
    """The rules that connect state, postman, clock and faults."""

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config
        self.clock = VirtualClock()
        self.timers = Timers(self.clock)
        self.rng = Random(config.seed)
        self.faults = Faults(self.rng)
        self.state = State(config, self.clock)
        self.enforce_rates = config.enforce_rates
        self._numbers: dict[str, _Bucket] = {}
        self._pairs: dict[tuple[str, str], _Bucket] = {}
        self._replies: dict[str, list[float]] = {}
        self._typing: set[tuple[str, str]] = set()
        self._tasks: set[asyncio.Future[Any]] = set()
        self.courier = Courier(
            config,
            self.state,
            self.timers,
            self.faults,
            self.rng,
            on_ack=self._on_ack,
            on_failure=self._on_failure,
            on_reachable=self.tell_hub,
        )

    async def run(self) -> None:
        """Timers and postman, until cancelled."""
        self.state.begin()
        self._resume()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.timers.run())
            group.create_task(self.courier.run())

    def _resume(self) -> None:
        """Takes up what a stopped process left: webhooks without a 200, receipts that never came."""
        unsettled, self.state.unsettled = self.state.unsettled, []
        unfinished, self.state.unfinished = self.state.unfinished, []
        for record in unsettled:
            if isinstance(record, Said):
                self.courier.add(self._message_event(record))
            elif (owner := self.state.sent.get(record.wamid)) is not None:
                self.courier.add(self._status_event(owner, record))
        for sent in unfinished:
            self.plan_receipts(sent, reorder=False)
        for template in self.state.templates.values():
            if template.status == "PENDING":
                self.timers.after(TEMPLATE_REVIEW_S, partial(self.decide_template, template.id))

    def contact(self, persona: Persona) -> Json:
        """The entry of `value.contacts`."""
        profile: Json = {"name": persona.name}
        if persona.username:
            profile["username"] = persona.username
        contact: Json = {"profile": profile}
        if persona.phone:
            contact["wa_id"] = persona.phone
        if persona.user_id:
            contact["user_id"] = persona.user_id
        return contact

    # The business sends.

    def over_limit(self, account: str, persona: str) -> int | None:
        """130429 or 131056 when a rate is exceeded now; counts the send otherwise."""
        if not self.enforce_rates:
            return None
        now = self.clock.now()
        if len(self._pairs) > 50_000:
            self._pairs.clear()
        number = self._numbers.setdefault(account, _Bucket(RATE_PER_S, now))
        pair = self._pairs.setdefault((account, persona), _Bucket(PAIR_BURST, now))
        if not number.take(RATE_PER_S, RATE_PER_S, now):
            return 130429
        if not pair.take(PAIR_BURST, 1 / PAIR_INTERVAL_S, now):
            return 131056
        return None

    async def accept(
        self, account: Account, persona: Persona, to: str, body: Json, *, early: bool = False
    ) -> Sent:
        """The send is in the ledger when this returns; receipts follow, or with `early` come before the
        answer."""
        number, kind = account.phone_number_id, str(body["type"])
        code: int | None = None
        if persona.behaviour.unreachable:
            code = 131026
        if kind != "template" and not self.state.window_open(number, persona.id):
            code = 131047
        later = self.faults.strike("fail_later", number, persona.id)
        if later is not None:
            code = int(later.number("code", 131026))
        n = self.state.next_n()
        correlator = body.get("biz_opaque_callback_data")
        sent = Sent(
            n=n,
            at=self.clock.now(),
            account=number,
            wamid=self.state.wamid(n),
            persona=persona.id,
            to=to,
            type=kind,
            body=body,
            correlator=correlator if isinstance(correlator, str) else None,
            fails=code,
        )
        reorder = self.faults.strike("reorder_statuses", sent.account, persona.id) is not None
        await self.state.ledger.append(sent)
        message = self.state.apply_sent(sent)
        if message is not None and code is None:
            self.stop_typing(sent.account, persona.id)
            self.state.tell(persona.id, "message", message=message)
        if early and code is None:
            keys = [self.move(sent, "sent"), self.move(sent, "delivered")]
            await self.courier.wait_for([key for key in keys if key], 5.0)
        self.plan_receipts(sent, reorder=reorder)
        if message is not None and code is None:
            self._plan_reply(sent, persona)
        return sent

    def plan_receipts(self, sent: Sent, *, reorder: bool) -> None:
        """Sets the timers for sent, delivered, read or failed, as the customer behaves."""
        persona = self.state.personas.get(sent.persona)
        behaviour = persona.behaviour if persona is not None else None
        if sent.fails is not None or behaviour is None:
            self.timers.after(SENT_AFTER_S, lambda: self._move_later(sent, "failed", sent.fails or 131026))
            return
        plan = ["sent"]
        delays = [SENT_AFTER_S]
        if not behaviour.blocks:
            plan.append("delivered")
            delays.append(max(behaviour.delivers_after_s, SENT_AFTER_S))
            if behaviour.reads_after_s is not None and not behaviour.never_reads:
                plan.append("read")
                delays.append(max(behaviour.reads_after_s, delays[-1]))
        if reorder:
            plan.reverse()
        for status, delay in zip(plan, delays, strict=True):
            self.timers.after(delay, partial(self._move_later, sent, status, None))

    def _move_later(self, sent: Sent, status: str, code: int | None) -> None:
        if self.courier.full:
            self.timers.after(1.0, lambda: self._move_later(sent, status, code))
            return
        self.move(sent, status, code)

    def move(self, sent: Sent, status: str, code: int | None = None) -> str | None:
        """A business message reaches a status: noted, shown, and queued as a webhook whose key is returned
        (None = not queued)."""
        reached = self.state.reached.setdefault(sent.wamid, set())
        if status in reached:
            return None  # the phone page and the plan may both say `read`
        reached.add(status)
        moved = Moved(wamid=sent.wamid, status=status, at=self.clock.now(), code=code)
        message = self.state.apply_moved(moved)
        if message is not None:
            self.state.tell_state(message)
        self.state.journal.note(moved)
        key = f"s:{sent.wamid}:{status}"
        if self._dropped(sent, status):
            self.state.journal.note(Acked([key]))
            return None
        self.courier.add(self._status_event(sent, moved))
        return key

    def _dropped(self, sent: Sent, status: str) -> bool:
        """Whether a drop_status fault takes it; one that names other statuses is not used up."""
        named = any(
            fault.fault == "drop_status" and status in (fault.params.get("statuses") or [status])
            for fault in self.faults.active.values()
        )
        return named and self.faults.strike("drop_status", sent.account, sent.persona) is not None

    def _status_event(self, sent: Sent, moved: Moved) -> Event:
        persona = self.state.personas.get(sent.persona)
        element: Json = {
            "id": sent.wamid,
            "status": moved.status,
            "timestamp": str(int(moved.at)),
            "recipient_id": (persona.phone or persona.user_id) if persona is not None else sent.to,
        }
        if persona is not None and persona.user_id:
            element["recipient_user_id"] = persona.user_id
        if sent.correlator:
            element["biz_opaque_callback_data"] = sent.correlator
        if moved.status == "failed":
            code = moved.code or 131026
            title = ERRORS.get(code, "Message failed")
            element["errors"] = [
                {
                    "code": code,
                    "title": title,
                    "message": title,
                    "error_data": {"details": _DETAILS.get(code, "The message was not delivered.")},
                    "href": "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/",
                }
            ]
        else:
            category = "utility" if sent.type == "template" else "service"
            if moved.status == "sent":
                element["conversation"] = {
                    "id": f"{sent.account}{sent.persona}",
                    "origin": {"type": category},
                    "expiration_timestamp": str(int(moved.at) + 86400),
                }
            element["pricing"] = {
                "billable": category != "service",
                "pricing_model": "PMP",
                "type": "regular" if category != "service" else "free_customer_service",
                "category": category,
            }
        return Event(
            key=f"s:{sent.wamid}:{moved.status}",
            kind="status",
            account=sent.account,
            persona=sent.persona,
            where="statuses",
            element=element,
            contact=self.contact(persona) if persona is not None else None,
            born=moved.at,
        )

    def _plan_reply(self, sent: Sent, persona: Persona) -> None:
        reply = persona.behaviour.replies_with
        if reply is None or sent.type not in ("text", "template", "interactive"):
            return
        now = self.clock.now()
        recent = [at for at in self._replies.get(persona.id, []) if now - at < 600]
        if len(recent) >= REPLIES_PER_10_MIN:
            return
        self._replies[persona.id] = [*recent, now]

        def answer() -> None:
            task = asyncio.ensure_future(
                self.say(sent.account, persona, {"type": "text", "text": {"body": reply}}, None, None)
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self.timers.after(max(persona.behaviour.reply_after_s, 0.1), answer)

    # The customer acts.

    async def say(
        self, account: str, persona: Persona, message: Json, client_ref: str | None, at: float | None
    ) -> tuple[str, Message | None]:
        """A customer's message is on disk when this returns (id, what the phone shows); the webhook is
        queued. Raises Full."""
        if self.courier.full:
            raise Full
        n = self.state.next_n()
        said = Said(
            n=n,
            at=at if at is not None else self.clock.now(),
            id=self.state.wamid(n),
            account=account,
            persona=persona.id,
            message=message,
            client_ref=client_ref,
        )
        if client_ref:
            self.state.client_refs[client_ref] = said.id
        await self.state.journal.append(said)
        shown = self.state.apply_said(said)
        if shown is not None:
            self.state.tell(persona.id, "message", message=shown)
        event = self._message_event(said)  # before the number changes: a change is told from the old one
        if message.get("type") == "system":
            self._change_number(persona, message)
        self.courier.add(event)
        return said.id, shown

    def _change_number(self, persona: Persona, message: Json) -> None:
        system = message.get("system")
        new = system.get("wa_id") if isinstance(system, dict) else None
        if isinstance(new, str) and new and new != persona.phone:
            self.state.set_persona(msgspec.structs.replace(persona, phone=new))

    def _message_event(self, said: Said) -> Event:
        persona = self.state.personas[said.persona]
        account = self.state.accounts.get(said.account)
        element: Json = {}
        if persona.phone:
            element["from"] = persona.phone
        if persona.user_id:
            element["from_user_id"] = persona.user_id
        element["id"] = said.id
        element["timestamp"] = str(int(said.at))
        element |= self._with_media_facts(said.message)
        context = element.get("context")
        if isinstance(context, dict) and "from" not in context and account is not None:
            element["context"] = {"from": account.display_phone_number, **context}
        return Event(
            key=f"m:{said.id}",
            kind="message",
            account=said.account,
            persona=said.persona,
            where="messages",
            element=element,
            contact=None if said.message.get("type") == "system" else self.contact(persona),
            born=said.at,
        )

    def _with_media_facts(self, message: Json) -> Json:
        """Media elements carry type and hash, which the phone page need not know."""
        kind = str(message.get("type"))
        part = message.get(kind)
        if isinstance(part, dict) and isinstance(part.get("id"), str):
            media = self.state.media.get(part["id"])
            if media is not None:
                facts = {"mime_type": media.mime_type, "sha256": media.sha256}
                if kind == "document" and media.filename:
                    facts["filename"] = media.filename
                return {**message, kind: {**facts, **part}}
        return message

    def read(self, persona: Persona, account: str, up_to: str | None) -> list[str]:
        """The customer reads the business's messages; ids that changed. Nothing is reported when receipts are
        off."""
        limit = self.state.messages[up_to].n if up_to in self.state.messages else None
        read: list[str] = []
        for message in list(self.state.threads.get(persona.id, ())):
            if (
                message.sender != "business"
                or message.account != account
                or message.state not in ("sent", "delivered")
                or (limit is not None and message.n > limit)
            ):
                continue
            self.state.seen.add(message.id)
            if persona.behaviour.never_reads or persona.behaviour.unreachable or persona.behaviour.blocks:
                continue
            sent = self.state.sent.get(message.id)
            if sent is None:
                continue
            self.move(sent, "sent")
            self.move(sent, "delivered")
            self.move(sent, "read")
            read.append(message.id)
        return read

    # The business reads and types.

    def mark_read(self, message_id: str, account: str, *, typing: bool) -> bool:
        """False when there is no such customer message of this account."""
        message = self.state.messages.get(message_id)
        if message is None or message.sender != "me" or message.account != account:
            return False
        marked = Marked(message_id, self.clock.now())
        self.state.journal.note(marked)
        self.state.apply_marked(marked)
        if typing:
            self.start_typing(account, message.persona)
        return True

    def start_typing(self, account: str, persona: str) -> None:
        """Shown for 25 s or until a message comes."""
        until = self.clock.now() + TYPING_S
        self._typing.add((account, persona))
        self.state.tell(persona, "typing", account=account, typing=True, until=iso(until))
        self.timers.at(until, lambda: self.stop_typing(account, persona))

    def stop_typing(self, account: str, persona: str) -> None:
        """Tells the phone page when it was shown."""
        if (account, persona) in self._typing:
            self._typing.discard((account, persona))
            self.state.tell(persona, "typing", account=account, typing=False, until=iso(self.clock.now()))

    # Templates.

    def submit_template(self, template: Template) -> None:
        """Under review from now."""
        self.state.set_template(template)
        self.timers.after(TEMPLATE_REVIEW_S, lambda: self.decide_template(template.id))

    def decide_template(self, template_id: str) -> None:
        """Approves, or rejects a text that begins or ends with a variable, and says so by webhook."""
        template = self.state.templates.get(template_id)
        if template is None or template.status != "PENDING":
            return
        bodies = [c.get("text") for c in template.components if str(c.get("type")).upper() == "BODY"]
        text = bodies[0].strip() if bodies and isinstance(bodies[0], str) else ""
        good = bool(text) and not text.startswith("{{") and not text.endswith("}}")
        template.status = "APPROVED" if good else "REJECTED"
        template.reason = "NONE" if good else "INVALID_FORMAT"
        template.decided_at = self.clock.now()
        self.state.set_template(template)
        account = next((a for a in self.state.accounts.values() if a.waba_id == template.waba_id), None)
        if account is None:
            return
        self.courier.add(
            Event(
                key=f"t:{template.id}:{template.status}",
                kind="template",
                account=account.phone_number_id,
                persona="",
                where="template",
                element={
                    "event": template.status,
                    "message_template_id": int(template.id),
                    "message_template_name": template.name,
                    "message_template_language": template.language,
                    "message_template_category": template.category,
                    "reason": template.reason,
                },
                contact=None,
                born=self.clock.now(),
            )
        )

    # The postman reports.

    def _on_ack(self, event: Event) -> None:
        if event.kind != "message":
            return
        message = self.state.messages.get(event.key[2:])
        if message is not None and message.state == "stored":
            message.state, message.state_at = "delivered", iso(self.clock.now())
            self.state.tell_state(message)

    def _on_failure(self, event: Event) -> None:
        message = self.state.messages.get(event.key[2:]) if event.kind == "message" else None
        if message is not None:
            message.attempts = event.attempts
            self.state.tell_state(message)

    def hub_view(self) -> Json:
        """Whether webhooks arrive."""
        return {
            "reachable": self.courier.reachable,
            "detail": self.courier.detail,
            "pending": self.courier.pending,
        }

    def tell_hub(self) -> None:
        """The same, to every phone page."""
        self.state.tell_everyone("hub", **self.hub_view())

    async def reset(self) -> None:
        """Everything the docs say POST /_ctl/reset forgets."""
        self.courier.clear()
        self.timers.clear()
        self.faults.active.clear()
        self.clock.reset()
        self.rng.seed(self.config.seed)
        self._numbers.clear()
        self._pairs.clear()
        self._replies.clear()
        self._typing.clear()
        await self.state.reset()
        self.state.tell_everyone("reset")


_DETAILS = {
    131026: "Message Undeliverable.",
    131047: "Message failed to send because more than 24 hours have passed since the customer last replied.",
    131049: "This message was not delivered to maintain healthy ecosystem engagement.",
    131050: "Unable to deliver the message. This recipient has chosen to stop receiving marketing messages.",
}


def new_media_id() -> str:
    """Digits, as the provider's."""
    return str(secrets.randbelow(9 * 10**14) + 10**14)


def fault_note(fault: Fault | None) -> str | None:
    """For the outbox."""
    return None if fault is None else fault.fault
