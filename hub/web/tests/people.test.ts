import { describe, expect, test } from "vitest";
import { auditSearch } from "../src/app/search";
import { changesOf, momentsOf, targetName } from "../src/features/settings/audit";
import { linksIn, mayChange, permissionsOf, rolesBelow } from "../src/features/settings/people";
import { deviceOf } from "../src/features/settings/sessions";

const all = {
  can_read_messages: true, can_send_messages: true, can_access_crm: true, can_access_pm: true, can_manage_team: true,
  can_manage_settings: true,
};
const someone = {
  id: "a", email: "a@example.test", first_name: null, last_name: null, role: "ADMIN" as const, is_active: true,
  visibility: "all" as const, permissions: { ...all, can_manage_settings: false },
};

describe("members", () => {
  test("nobody gives a role above their own, or a permission that they lack", () => {
    expect(rolesBelow("OWNER")).toEqual(["OWNER", "ADMIN", "AGENT"]);
    expect(rolesBelow("ADMIN")).toEqual(["ADMIN", "AGENT"]);
    expect(permissionsOf("ADMIN", someone)).toEqual({ ...all, can_manage_settings: false });
    expect(permissionsOf("AGENT", someone)).toEqual({
      ...all, can_access_pm: false, can_manage_team: false, can_manage_settings: false,
    });
  });

  test("administrators change neither owners nor themselves; agents nobody", () => {
    const owner = { ...someone, id: "o", role: "OWNER" as const };
    const agent = { ...someone, id: "g", role: "AGENT" as const, permissions: { ...all, can_manage_team: false } };
    expect([mayChange(someone, owner), mayChange(someone, someone), mayChange(someone, agent)]).toEqual([false, false, true]);
    expect([mayChange(owner, owner), mayChange(agent, agent), mayChange(undefined, agent)]).toEqual([true, false, false]);
  });

  test("links are told where no server mails them, the newest of each address", () => {
    const mail = (recipient: string, token: string, template = "invitation") => ({
      recipient, template, text: `Join here:\nhttps://hub.example/invitation#token=${token}\nIt works once.`,
    });
    const mails = [mail("a@example.test", "new_1"), mail("a@example.test", "old"), mail("b@example.test", "x", "recovery")];
    expect(linksIn({ mail_server: false, mails })).toEqual({ "a@example.test": "https://hub.example/invitation#token=new_1" });
    expect(linksIn({ mail_server: true, mails })).toBeNull();
  });
});

describe("the audit log", () => {
  test("an address asks for nothing that is no filter", () => {
    expect(auditSearch({ what: "member,or", who: "me", from: "today", to: "2026-01-31", more: 1 })).toEqual({ to: "2026-01-31" });
  });

  test("the last day belongs to what is asked for", () => {
    const { after = "", before = "" } = momentsOf({ from: "2026-02-28", to: "2026-02-28" });
    expect(Date.parse(before) - Date.parse(after)).toBe(86_400_000);
    expect(new Date(after).getHours()).toBe(0);
    expect(momentsOf({})).toEqual({});
  });

  test("a change is shown field by field, what is new or gone with one side", () => {
    const details = { before: { role: "AGENT", a: null }, after: { role: "ADMIN", b: true }, reason: "asked" };
    expect(changesOf({ details })).toEqual([
      { field: "a", before: null, after: undefined },
      { field: "b", before: undefined, after: true },
      { field: "role", before: "AGENT", after: "ADMIN" },
      { field: "reason", before: undefined, after: "asked" },
    ]);
    expect(targetName({ details: { before: { name: "Old" }, after: { name: "New" } } })).toBe("New");
    expect(targetName({ details: { before: { role: "x" } } })).toBeNull();
  });
});

describe("sessions", () => {
  test("a device is called by its browser and system; a program by neither", () => {
    const chrome = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36";
    expect(deviceOf(`Mozilla/5.0 (Linux; Android 10; K) ${chrome}`)).toBe("Chrome, Android");
    expect(deviceOf(`Mozilla/5.0 (Windows NT 10.0; Win64; x64) ${chrome} Edg/140.0.0.0`)).toBe("Edge, Windows");
    expect(deviceOf("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1")).toBe("Safari, iPhone");
    expect([deviceOf("supabase-py/2.0"), deviceOf(null)]).toEqual([null, null]);
  });
});
