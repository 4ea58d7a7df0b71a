-- Accounts: the mails about them.

-- `key`: one waiting mail for one purpose; a later one takes its place. `only_if` user: sent when the address has an account by
-- then; strangers' requests leave the same row behind whether it has one or not.
alter table app.mail_outbox
  add column key text,
  add column only_if text,
  add constraint mail_outbox_only_if_check check (only_if = 'user'),
  add constraint mail_outbox_lease_check check ((state = 'running') = (lease_token is not null));
create unique index mail_outbox_key_key on app.mail_outbox (organization_id, key) nulls not distinct where key is not null;
create index mail_outbox_lease_idx on app.mail_outbox (lease_until) where state = 'running';
