"""The judges themselves: each invariant sees what it is there for."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest

from tests.fault.clients import Crowd
from tests.fault.invariants import drained, hold
from tests.fault.load import Load
from tests.fault.rig import Rig
from tests.fault.world import SECRET_KEY

pytestmark = pytest.mark.fault


async def test_each_invariant_can_be_broken(rig_of: Callable[..., Rig], seed: int) -> None:
    async with rig_of(hubs=1, workers=1) as rig, Crowd(rig, 4, seed=seed) as crowd:
        async with Load(rig, inbound=0, sends=0, seed=seed) as load:
            for org in rig.world.orgs[:4]:
                load.say(org)
                load.send(org)
        await drained(rig, load)
        await hold(rig, load, crowd)

        async def broken(what: str, change: Callable[[], Awaitable[object] | object]) -> None:
            done = change()
            if isinstance(done, Awaitable):
                await done
            with pytest.raises(AssertionError, match=what):
                await hold(rig, load, crowd)

        ledger = rig.folder / "provider" / "sandbox" / "ledger.jsonl"
        honest = ledger.read_text()
        sent = next(line for line in honest.splitlines() if json.loads(line)["record"] == "sent")
        await broken(
            r"I4: 1 messages were accepted more than 1 times", lambda: ledger.write_text(honest + sent + "\n")
        )
        await broken(
            r"I4: .* is READ, but the provider never",
            lambda: ledger.write_text(honest.replace(sent + "\n", "")),
        )
        ledger.write_text(honest)

        log = rig.hubs[0].log
        clean = log.read_text()
        await broken("I10: hub0.log shows a planted secret", lambda: log.write_text(f"{clean}{SECRET_KEY}\n"))
        await broken(
            "I10: hub0.log shows a customer's words", lambda: log.write_text(f"{clean}canary00x in\n")
        )
        bug = json.dumps({"event": "x.failed", "level": "error"})
        await broken("I12: hub0 logged x.failed 1 times", lambda: log.write_text(f"{clean}{bug}\n"))
        log.write_text(clean)

        load.webhook_answers[500] += 1
        await broken("I12: 1 answers of webhooks were 500", lambda: None)
        load.webhook_answers[500] = 0

        crowd.python[0].wrong.append("saw canary99x")
        await broken("saw canary99x", lambda: None)
        crowd.python[0].wrong.clear()
        rows = crowd.python[0].rows["messages"]
        id, row = next(iter(rows.items()))
        rows[id] = {**row, "status": "PENDING"}
        await broken("messages .* status is 'PENDING'", lambda: None)
        rows[id] = row
        del rows[id]
        await broken("1 rows missing", lambda: None)
        rows[id] = row

        await hold(rig, load, crowd)
        # from here on the database itself is not honest any more
        quietly = "set session_replication_role = replica; "
        await broken(
            r"I2: 1 changes but 0 events of notes",
            lambda: rig.fetch(
                "insert into audit.changes (organization_id, table_name, op, entity_id)"
                " select id, 'notes', 'INSERT', id from organizations limit 1 returning n"
            ),
        )
        await broken(
            r"I7: 1 rows of jobs are running",
            lambda: rig.fetch(
                "insert into app.jobs (organization_id, kind, state, lease_token, lease_until)"
                " select id, 'nothing', 'running', gen_random_uuid(), now() + interval '1 hour'"
                " from organizations limit 1 returning id"
            ),
        )
        await broken(
            r"I2: organization .* has \d+ events",
            lambda: rig.fetch("delete from app.events where seq = 5 returning seq"),
        )
        conn = await rig.connect()
        try:
            await conn.execute(quietly + "delete from messages where direction = 'INBOUND'")
        finally:
            await conn.close()
        await broken(r"I1: \d+ of \d+ acknowledged messages have no row", lambda: None)
