-- What an announcement counts among those in flight: an order of a hundred lines takes products as long as many of one line.
alter table outbox add column weight integer not null default 1 check (weight > 0);
