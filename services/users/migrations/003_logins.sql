-- The highest cost of any stored hash, which every login looks up: "$2b$12$…" has cost 12.
create index users_by_cost on users ((substr(password_hash, 5, 2)::int)) where password_hash ~ '^\$2[aby]\$[0-9]{2}\$';
