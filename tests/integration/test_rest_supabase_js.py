"""@supabase/supabase-js, which we did not write, through every method of its query builders (rest.md 19)."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from hub.resources import AUTH
from tests.clients import COLLECTION, DOCUMENTED, SHIFTS, drive
from tests.factories import Member, Org
from tests.server import Hub

#: What each call gives: data, or the error's code; with count and status where the client has them.
EXPECTED: dict[str, dict[str, Any]] = {
    "insert minimal": {"data": None, "status": 201}, "insert count": {"data": None, "count": 1,
    "status": 201},
    "insert defaultToNull false": {"data": [{"tags": []}], "status": 201},
    "upsert": {"data": [{"first_name": "Mia"}], "status": 200}, "upsert ignore": {"data": [], "status": 201},
    "upsert onConflict": {"data": [{"first_name": "Leo"}], "status": 200},
    "update": {"data": [{"job_title": "CEO"}], "status": 200},
    "update count": {"data": None, "count": 2, "status": 204},
    "update nothing found": {"data": [], "status": 200},
    "update without filter": {"code": "21000", "status": 400},
    "deals": {"data": [{"title": "D1"}, {"title": "D2"}, {"title": "D3"}], "status": 201},
    "eq": {"data": "Mia"}, "neq": {"data": "LeoZoe"}, "gt gte lt lte": {"data": "LeoMia"},
    "like": {"data": "Mia"},
    "ilike": {"data": "Mia"}, "likeAllOf": {"data": "Mia"}, "likeAnyOf": {"data": "LeoMia"},
    "ilikeAllOf": {"data": "Mia"}, "ilikeAnyOf": {"data": "LeoMia"}, "regexMatch": {"data": "LeoMia"},
    "regexIMatch": {"data": "Mia"}, "is": {"data": "Zoe"}, "isDistinct": {"data": "MiaZoe"},
    "in": {"data": "LeoMia"}, "notIn": {"data": "Zoe"}, "contains array": {"data": "Mia"},
    "contains json": {"data": "Mia"}, "containedBy": {"data": "LeoMiaZoe"}, "overlaps": {"data": "Leo"},
    "textSearch": {"data": "Mia"}, "textSearch plain": {"data": "Leo"}, "textSearch phrase": {"data": "Mia"},
    "match": {"data": "Mia"}, "not": {"data": "Zoe"}, "not is": {"data": "LeoMia"}, "or": {"data": "LeoMia"},
    "or embedded": {"data": [{"first_name": "Mia", "deals": [{"title": "D1"}]}]}, "filter": {"data": "Leo"},
    "json path": {"data": "Mia"}, "rangeGt on text": {"code": "42883", "status": 404},
    "rangeGt": {"data": "late night"}, "rangeGte": {"data": "late night"}, "rangeLt": {"data": "early"},
    "rangeLte": {"data": "early late"}, "rangeAdjacent": {"data": "early night"},
    "overlaps range": {"data": "early late"}, "contains range": {"data": "night"},
    "containedBy range": {"data": "early late"},
    "returns": {"data": [{"first_name": "Mia"}]}, "overrideTypes": {"data": [{"first_name": "Mia"}]},
    "getOpenApiSpec": {"data": True, "status": 200},
    "order": {"data": [{"first_name": "Leo"}, {"first_name": "Mia"}, {"first_name": "Zoe"}]},
    "limit": {"data": [{"first_name": "D"}]}, "range": {"data": [{"first_name": "Mia"},
    {"first_name": "Zoe"}]},
    "single": {"data": {"first_name": "Mia"}}, "single of many": {"code": "PGRST116", "status": 406},
    "maybeSingle": {"data": None, "status": 200}, "csv": {"data": 'first_name,tags\nMia,"{vip,""a b""}"'},
    "count": {"data": None, "count": 4, "status": 200}, "count planned": {"count": 4, "status": 206},
    "count estimated": {"count": 4, "status": 206}, "beyond the end": {"code": "PGRST103", "status": 416},
    "explain": {"code": "PGRST107", "status": 406}, "geojson": {"code": "PGRST107", "status": 406},
    "stripNulls": {"data": [{"first_name": "Mia"}]},
    "embed": {"data": [{"title": "D1", "contacts": {"first_name": "Mia"}},
                       {"title": "D2", "contacts": {"first_name": "Mia"}}]},
    "embed order limit": {"data": [{"first_name": "Mia", "deals": [{"title": "D2"}]}]},
    "embed by constraint": {"data": {"title": "D1", "profiles": None}},
    "spread": {"data": [{"title": "D1", "who": "Mia"}]}, "rollback": {"data": [{"first_name": "R"}],
    "status": 201},
    "maxAffected": {"code": "PGRST124", "status": 400}, "other schema": {"code": "PGRST106", "status": 406},
    "unknown table": {"code": "PGRST205", "status": 404}, "unknown column": {"code": "42703", "status": 400},
    "abortSignal": {"data": [{"first_name": "Mia"}]}, "setHeader": {"data": [{"first_name": "Mia"}]},
    "rpc rows": {"data": [{"first_name": "Mia"}]}, "rpc get": {"data": [{"first_name": "Mia"}], "count": 1},
    "rpc head": {"data": None, "count": 5, "status": 200}, "rpc one": {"data": {"tags": ["x"]}},
    "rpc unknown": {"code": "PGRST202", "status": 404}, "delete": {"data": [{"first_name": "Zoe"}],
    "status": 200},
    "delete count": {"data": None, "count": 1, "status": 204},
    "delete without filter": {"code": "21000", "status": 400},
}  # fmt: skip


@pytest.fixture
async def said(hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection) -> dict[str, dict[str, Any]]:
    """What the client was answered, by call."""
    await superuser.execute(SHIFTS)
    anon = (await hub.app[AUTH].keyring()).project_keys().anon
    return await drive("tables.mjs", hub.url, anon, await hub.token(owner.email), str(org.id))


async def test_19_every_method_of_supabase_js(said: dict[str, dict[str, Any]], org: Org) -> None:
    wrong = []
    for name, expected in EXPECTED.items():
        answer = said[name]
        if "code" in expected:
            found = {"code": (answer["error"] or {}).get("code"), "status": answer["status"]}
        else:
            found = {key: answer[key] for key in expected}
            if answer["error"] is not None:
                found["error"] = answer["error"]
        if found != expected:
            wrong.append((name, answer))
    assert wrong == []
    assert said["rpc"]["data"] == str(org.id)
    assert said["insert single"]["data"]["name"] == "Red Ltd"
    (sums,) = said["aggregate"]["data"]
    assert (sums["sum"], sums["count"]) == (30.5, 2)
    assert "42703" in str(said["throwOnError"]) or "nope" in said["throwOnError"]["thrown"]
    assert [row["first_name"] for row in said["insert many"]["data"]] == ["Mia", "Leo", "Zoe"]
    assert "The result contains" in said["single of many"]["error"]["details"]
    assert all(line.get("thrown") is None for name, line in said.items() if name != "throwOnError")


async def test_19_no_method_of_the_builders_is_left_out(said: dict[str, dict[str, Any]]) -> None:
    """The prototypes of the installed version say which there are, so a new one is noticed."""
    assert {"select", "upsert", "eq", "rangeAdjacent", "maybeSingle", "retry"} <= set(said["methods"]["all"])
    assert len(said["methods"]["all"]) >= 60
    assert said["methods"]["uncalled"] == []


async def test_REST_01_the_documents_rows_through_supabase_js(hub: Hub, org: Org, owner: Member) -> None:
    """Every table of the document with its own bodies: made, found, changed and removed."""
    anon = (await hub.app[AUTH].keyring()).project_keys().anon
    told = await drive(
        "document.mjs", hub.url, anon, await hub.token(owner.email), str(org.id), str(COLLECTION)
    )
    made = told.pop("tables")["made"]
    assert set(made) == DOCUMENTED
    assert [(name, line["error"]) for name, line in told.items() if line["error"] is not None] == []
    for table in made:
        row = told[f"{table} insert"]["data"]
        assert (told[f"{table} select"]["data"], told[f"{table} select"]["count"]) == ([row], 1)
        # a message stays as a tombstone (MSG-01)
        assert told[f"{table} delete"]["data"] == ([] if table == "messages" else [{"id": row["id"]}])
    changed = [name for name in told if name.endswith(" update")]
    assert len(changed) == len(DOCUMENTED) - 1, "milestones have no change in the document"
    for name in changed:
        assert told[name]["data"] != told[name.replace("update", "insert")]["data"], name
