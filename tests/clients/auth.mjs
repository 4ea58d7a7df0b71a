// supabase-js' whole auth client against a running hub: node auth.mjs <url> <anon key> <service_role key> <mailbox url> <member's address> <password>
// The mailbox answers what was last written to an address: {code, token, link}.
import { createHmac } from "node:crypto";
import { createClient, drive } from "./driver.mjs";

const [url, anon, service, mailbox, member, password] = process.argv.slice(2);
const { db, say } = drive(url, anon);
const auth = db.auth;
const events = [];
auth.onAuthStateChange((event) => events.push(event));
const mail = async (to, template) => (await fetch(`${mailbox}?to=${encodeURIComponent(to)}&template=${template}`)).json();
const options = { auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false } };
const fresh = (more = {}) => createClient(url, anon, { auth: { ...options.auth, ...more } });

function totp(secret, away) {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
  const bits = [...secret].map((c) => alphabet.indexOf(c).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from(bits.match(/.{8}/g).map((b) => parseInt(b, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30000) + away));
  const hash = createHmac("sha1", key).update(counter).digest();
  const at = hash[19] & 15;
  return String((hash.readUInt32BE(at) & 0x7fffffff) % 1e6).padStart(6, "0");
}

// Signing up and in.
await say("signUp weak", auth.signUp({ email: "new@example.test", password: "short" }));
await say("signUp", auth.signUp({ email: "new@example.test", password: "a long enough one", options: { data: { locale: "ar" } } }));
await say("signIn unconfirmed", auth.signInWithPassword({ email: "new@example.test", password: "a long enough one" }));
await say("verifyOtp signup", auth.verifyOtp({ email: "new@example.test", token: (await mail("new@example.test", "signup")).code, type: "signup" }));
await say("signInAnonymously", auth.signInAnonymously());
await say("signIn wrong", auth.signInWithPassword({ email: member, password: "wrong horse" }));
await say("signIn", auth.signInWithPassword({ email: member, password }));
await say("getSession", auth.getSession());
await say("getUser", auth.getUser());
await say("getUserIdentities", auth.getUserIdentities());
await say("getClaims", auth.getClaims());
await say("refreshSession", auth.refreshSession());
const { data: { session } } = await auth.getSession();
await say("setSession", fresh().auth.setSession({ access_token: session.access_token, refresh_token: session.refresh_token }));
await say("refresh unknown", fresh().auth.refreshSession({ refresh_token: "unknown-refresh-token" }));
await say("updateUser data", auth.updateUser({ data: { theme: "dark" } }));
await say("updateUser same", auth.updateUser({ password }));
await say("updateUser weak", auth.updateUser({ password: "password1" }));
await say("reauthenticate", auth.reauthenticate());
await say("updateUser nonce", auth.updateUser({ password: "another horse battery", nonce: (await mail(member, "reauthentication")).code }));
await say("updateUser email", auth.updateUser({ email: "moved@example.test" }));
await say("verifyOtp email_change", auth.verifyOtp({ email: "moved@example.test", token: (await mail("moved@example.test", "email_change")).code, type: "email_change" }));

// By mail.
await say("resetPasswordForEmail", auth.resetPasswordForEmail("moved@example.test", { redirectTo: `${url}/settings` }));
await say("verifyOtp recovery", fresh().auth.verifyOtp({ token_hash: (await mail("moved@example.test", "recovery")).token, type: "recovery" }));
await say("verifyOtp used", fresh().auth.verifyOtp({ token_hash: (await mail("moved@example.test", "recovery")).token, type: "recovery" }));
await say("signInWithOtp", auth.signInWithOtp({ email: "moved@example.test" }));
await say("resend", auth.resend({ type: "signup", email: "unknown@example.test" }));
await say("resend too soon", auth.resend({ type: "signup", email: "unknown@example.test" }));
await say("verifyOtp email", fresh().auth.verifyOtp({ email: "moved@example.test", token: (await mail("moved@example.test", "magiclink")).code, type: "email" }));
const kept = new Map();
const pkce = fresh({ flowType: "pkce", persistSession: true, storage: { getItem: (k) => kept.get(k) ?? null, setItem: (k, v) => void kept.set(k, v), removeItem: (k) => void kept.delete(k) } });
await say("pkce ask", pkce.auth.signInWithOtp({ email: "new@example.test", options: { emailRedirectTo: url } }));
const followed = await fetch((await mail("new@example.test", "magiclink")).link, { redirect: "manual" });
await say("exchangeCodeForSession", pkce.auth.exchangeCodeForSession(new URL(followed.headers.get("location")).searchParams.get("code")));
await say("exchange again", fresh().auth.exchangeCodeForSession("unknown"));

// What is not offered.
await say("signInWithOAuth", async () => {
  const { data } = await auth.signInWithOAuth({ provider: "github", options: { skipBrowserRedirect: true } });
  return { data: { status: (await fetch(data.url, { redirect: "manual" })).status } };
});
await say("signInWithIdToken", fresh().auth.signInWithIdToken({ provider: "google", token: "x" }));
await say("signInWithSSO", auth.signInWithSSO({ domain: "example.test" }));
await say("signIn phone", fresh().auth.signInWithOtp({ phone: "+201000000000" }));
await say("linkIdentity", async () => auth.linkIdentity({ provider: "github", options: { skipBrowserRedirect: true } }));
await say("unlinkIdentity", async () => auth.unlinkIdentity((await auth.getUserIdentities()).data.identities[0]));

// Two factors.
await say("mfa refused", auth.mfa.enroll({ factorType: "phone", phone: "+201000000000", friendlyName: "sms" }));
const { data: factor } = await auth.mfa.enroll({ factorType: "totp", friendlyName: "phone" });
await say("mfa.enroll", async () => ({ data: { type: factor.type, name: factor.friendly_name, picture: factor.totp.qr_code.slice(0, 26), uri: factor.totp.uri.slice(0, 15) } }));
const challenge = await say("mfa.challenge", auth.mfa.challenge({ factorId: factor.id }));
await say("mfa wrong", auth.mfa.verify({ factorId: factor.id, challengeId: challenge.id, code: "000000" }));
await say("mfa.verify", auth.mfa.verify({ factorId: factor.id, challengeId: challenge.id, code: totp(factor.totp.secret, -1) }));
await say("mfa.listFactors", auth.mfa.listFactors());
await say("mfa.level", auth.mfa.getAuthenticatorAssuranceLevel());
const second = fresh();
await second.auth.signInWithPassword({ email: "moved@example.test", password: "another horse battery" });
await say("mfa.level before", second.auth.mfa.getAuthenticatorAssuranceLevel());
await say("table before", second.from("contacts").select("id"));
await say("mfa.unenroll refused", second.auth.mfa.unenroll({ factorId: factor.id }));
await say("mfa.challengeAndVerify", second.auth.mfa.challengeAndVerify({ factorId: factor.id, code: totp(factor.totp.secret, 0) }));
await say("table after", second.from("contacts").select("id"));
await say("mfa.unenroll", second.auth.mfa.unenroll({ factorId: factor.id }));

// The service_role.
const admin = createClient(url, service, options).auth.admin;
const made = await say("admin.createUser", admin.createUser({ email: "made@example.test", password: "a long enough one", email_confirm: true, user_metadata: { a: 1 } }));
await say("admin.createUser again", admin.createUser({ email: "made@example.test", password: "a long enough one" }));
await say("admin.getUserById", admin.getUserById(made.user.id));
await say("admin.updateUserById", admin.updateUserById(made.user.id, { app_metadata: { plan: "x" }, ban_duration: "1h" }));
await say("admin.listUsers", admin.listUsers({ page: 1, perPage: 2 }));
await say("admin.generateLink", admin.generateLink({ type: "recovery", email: "made@example.test" }));
await say("admin.inviteUserByEmail", admin.inviteUserByEmail("invited@example.test", { data: { b: 2 } }));
await say("admin.mfa.listFactors", admin.mfa.listFactors({ userId: made.user.id }));
await say("admin.deleteUser", admin.deleteUser(made.user.id));
await say("admin unknown", admin.getUserById(made.user.id));
await say("admin as anon", createClient(url, anon, options).auth.admin.listUsers());
await say("admin.signOut", async () => {
  const third = fresh();
  const { data } = await third.auth.signInWithPassword({ email: "moved@example.test", password: "another horse battery" });
  const { error } = await admin.signOut(data.session.access_token, "local");
  return { data: { refused: (await third.auth.getUser()).error?.name }, error };
});

// Out.
await say("signOut others", auth.signOut({ scope: "others" }));
await say("getUser still", auth.getUser());
await say("signOut", auth.signOut());
await say("getUser out", auth.getUser(session.access_token));
await say("events", async () => ({ data: events }));
