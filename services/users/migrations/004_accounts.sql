alter table users
  add column disabled_at     timestamptz,
  -- by which gateways learn of a role that is newer than the tokens that they see
  add column role_changed_at timestamptz;
create index users_enabled_admins on users (id) where role = 'admin' and disabled_at is null;
create index users_by_role_change on users (role_changed_at) where role_changed_at is not null;

-- Who did what. Of people it has their ids alone, and no row refers to theirs: it outlives them.
create table audit_log (
  id         bigint generated always as identity primary key,
  at         timestamptz not null default clock_timestamp(),
  -- a user's id, or system; null where nobody is known
  actor      text check (actor ~ '^(system|[1-9][0-9]*)$'),
  action     text not null,
  subject    text check (char_length(subject) <= 64),
  address    text check (char_length(address) <= 64),
  request_id text check (char_length(request_id) <= 128)
);
create index audit_log_by_actor on audit_log (actor, id);
create index audit_log_by_subject on audit_log (subject, id);
create index audit_log_by_action on audit_log (action, id);
-- by which they are counted: nobody who is not logged in may fill the disk
create index audit_log_failures on audit_log (at) where action in ('login.failed', 'password.refused', 'failures.omitted');
