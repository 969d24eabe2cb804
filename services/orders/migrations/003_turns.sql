-- Whose turn it is: what is new is emitted in rotation among users, so that one buyer's thousand orders don't delay the
-- next buyer's first. 0 is nobody in particular. This locks out reads too, so the index that takes long is not built here.
alter table outbox add column user_id bigint not null default 0;
