-- Creates a role and a database for each service, as named in its URL. No role can access another database or use more than its
-- share of the connections (max_connections in docker-compose.yml).
-- Runs automatically only on an empty volume. Run by hand, it adds what is missing and resets the passwords:
--   docker compose exec postgres psql -U postgres -f /docker-entrypoint-initdb.d/shop.sql
\set ON_ERROR_STOP on
\getenv users USERS_DATABASE_URL
\getenv products PRODUCTS_DATABASE_URL
\getenv orders ORDERS_DATABASE_URL

create temporary table service as
select part[1] as role, part[2] as password, part[3] as database
from unnest(array[:'users', :'products', :'orders']) as url,
  regexp_match(url, '^postgres(?:ql)?://([^:]+):(.+)@[^@/]+/([^/?]+)') as part;

select format('create role %I login', role) from service where role not in (select rolname from pg_roles)
\gexec
select format('alter role %I nosuperuser nocreatedb nocreaterole noreplication nobypassrls connection limit 90 password %L', role, password) from service
\gexec
select format('create database %I owner %I', database, role) from service where database not in (select datname from pg_database)
\gexec
select format('revoke all on database %I from public', database) from service
\gexec

-- By default every role may connect to these, create temporary tables and read the catalogues.
revoke all on database postgres, template1 from public;

-- The superuser needs no password, which could be guessed: it logs in over the container's socket, as above.
alter role current_user password null;
