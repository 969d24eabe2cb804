-- What an announcement counts among those in flight: an order of a hundred lines takes products as long as many of one line. And
-- large ones wait in turns of their own. Only new rows are in this index: it is built at once unless many wait.
alter table outbox add column weight integer not null default 1 check (weight > 0);
alter table outbox add column large boolean not null default false;
drop index outbox_new_by_user;
create index outbox_new_by_user on outbox (large, user_id, id) where state = 'PENDING' and attempts < 1;
