-- Files of messages: fetched from providers as work, uploaded by members, sent through providers (sql/functions/55_media.sql).

-- What a message showed before it was deleted goes with its files; uploads that no message took are found by age.
create index media_files_unused_idx on public.media_files (created_at) where message_id is null;
-- One file on disk may belong to several rows: it goes when the last of them has gone.
create index media_files_storage_key_idx on public.media_files (organization_id, storage_key) where storage_key is not null;

-- Under which id an account's provider keeps a file that we gave it, and until when.
create table app.media_uploads (
  organization_id uuid not null, file_id uuid not null, channel_account_id uuid not null, provider_id text not null, expires_at timestamptz not null,
  constraint media_uploads_pkey primary key (organization_id, file_id, channel_account_id),
  constraint media_uploads_file_id_fkey foreign key (organization_id, file_id) references public.media_files (organization_id, id) on delete cascade,
  constraint media_uploads_channel_account_id_fkey foreign key (organization_id, channel_account_id) references public.channel_accounts (organization_id, id) on delete cascade
);
create index media_uploads_channel_account_id_idx on app.media_uploads (organization_id, channel_account_id);
