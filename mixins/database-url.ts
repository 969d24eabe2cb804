/*
 * A database's URL, which may name several servers (libpq's form: PostgreSQL manual, "Connection URIs").
 */

/** What comes before the servers, the servers, and what comes after them. */
const FORM = /^([^/]*\/\/(?:[^@/?#]*@)?)([^/?#]*)(.*)$/s;

const parts = (url: string): [head: string, servers: string[], rest: string] => {
  const [, head = "", servers = "", rest = ""] = FORM.exec(url) ?? [];
  return [head, servers.split(","), rest];
};

/** A URL for each server of `postgres://user:password@h1:5432,h2:5432/name`, in their order: pg knows one server to a URL. */
export function serversOf(url: string): [first: string, ...others: string[]] {
  const [head, [first = "", ...others], rest] = parts(url);
  const of = (server: string): string => head + server + rest;
  return [of(first), ...others.map(of)];
}

/** The same servers and user, and another database. */
export function withDatabase(url: string, name: string): string {
  const [head, servers, rest] = parts(url);
  return `${head}${servers.join(",")}/${encodeURIComponent(name)}${rest.replace(/^[^?#]*/, "")}`;
}

/** Why a URL whose servers are each well written can't be used; undefined where it can. */
export function urlMistake(url: string): string | undefined {
  const { searchParams } = new URL(serversOf(url)[0]);
  const attributes = searchParams.get("target_session_attrs");
  if (attributes !== null && !["read-write", "primary"].includes(attributes))
    return `has target_session_attrs=${attributes}: a service writes, set read-write`;
  if (searchParams.get("host")?.includes(","))
    return "names its servers behind the ?: set postgres://user:password@host1:5432,host2:5432/…";
  return undefined;
}
