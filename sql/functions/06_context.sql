-- What a read outside a transaction carries (hub/db/tenancy.py, guarantees 15): it raises unless the connection speaks for the
-- caller, so a connection that was given on with somebody else's identity shows nothing.
create or replace function app.assert_ctx(expected text) returns boolean
  language plpgsql stable parallel safe
  as $$
  begin
    if current_setting('hub.ctx', true) is distinct from expected then
      raise exception using errcode = 'XX000', message = 'the connection speaks for somebody else';
    end if;
    return true;
  end $$;
grant execute on function app.assert_ctx(text) to anon, authenticated, service_role;
