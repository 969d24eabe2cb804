-- First the index, whose lock keeps writers out: a row that the update holds and a writer waits for would be a deadlock.
-- `attempts < 1` is `= 0` in words that fit this index alone, so that the relay's walk from user to user uses no other.
drop index if exists outbox_new_by_user;
create index outbox_new_by_user on outbox (user_id, id) where state = 'PENDING' and attempts < 1;
update outbox as x set user_id = o.user_id from orders o where o.id = x.order_id and x.state = 'PENDING';
