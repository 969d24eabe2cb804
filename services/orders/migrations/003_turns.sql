-- Whose turn it is: what is new is emitted in rotation among users, so that one buyer's thousand orders don't delay the
-- next buyer's first. 0 is nobody in particular.
alter table outbox add column user_id bigint not null default 0;
update outbox as x set user_id = o.user_id from orders o where o.id = x.order_id and x.state = 'PENDING';
create index outbox_new_by_user on outbox (user_id, id) where state = 'PENDING' and attempts = 0;
