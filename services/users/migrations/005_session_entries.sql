-- by which they are counted: accounts are free, and nobody who logs in and out for ever may fill the disk
create index audit_log_sessions on audit_log (subject, at)
  where action in ('login.succeeded', 'logout', 'refresh.reused', 'password.changed', 'sessions.omitted');
