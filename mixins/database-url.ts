/*
 * A database's URL, which may name several servers (libpq's form: PostgreSQL manual, "Connection URIs").
 */

/** The part before the servers, the servers, and the part after them. */
const FORM = /^([^/]*\/\/(?:[^@/?#]*@)?)([^/?#]*)(.*)$/s;

const parts = (url: string): [head: string, servers: string[], rest: string] => {
  const [, head = "", servers = "", rest = ""] = FORM.exec(url) ?? [];
  return [head, servers.split(","), rest];
};

/** A URL for each server of `postgres://user:password@h1:5432,h2:5432/name`, in that order: pg supports only one server per URL. */
export function serversOf(url: string): [first: string, ...others: string[]] {
  const [head, [first = "", ...others], rest] = parts(url);
  const of = (server: string): string => head + server + rest;
  return [of(first), ...others.map(of)];
}

/** The same URL with another database. */
export function withDatabase(url: string, name: string): string {
  const [head, servers, rest] = parts(url);
  return `${head}${servers.join(",")}/${encodeURIComponent(name)}${rest.replace(/^[^?#]*/, "")}`;
}

/** The parameters of a URL that have an effect. pg would ignore any other, such as a misspelled `sslmode`. */
const PARAMETERS = [
  ...["sslmode", "sslrootcert", "sslcert", "sslkey", "ssl", "uselibpqcompat"],
  ...["options", "target_session_attrs", "host", "port", "user", "password"],
];
const SSL_MODES = ["disable", "prefer", "require", "verify-ca", "verify-full", "no-verify"];

/** Why a URL can't be used, although the part of each server is valid; undefined if it can. */
export function urlMistake(url: string): string | undefined {
  const { searchParams } = new URL(serversOf(url)[0]);
  const unknown = [...searchParams.keys()].find((name) => !PARAMETERS.includes(name));
  if (unknown !== undefined) return `has an unknown parameter, ${unknown.slice(0, 40)}: a service knows ${PARAMETERS.join(", ")}`;
  const sslmode = searchParams.get("sslmode");
  if (sslmode !== null && !SSL_MODES.includes(sslmode)) return `has an unknown sslmode: set one of ${SSL_MODES.join(", ")}`;
  const attributes = searchParams.get("target_session_attrs");
  if (attributes !== null && !["read-write", "primary"].includes(attributes))
    return `has target_session_attrs=${attributes}, but a service needs to write: set read-write`;
  if (searchParams.get("host")?.includes(","))
    return "lists its servers in the host parameter: set postgres://user:password@host1:5432,host2:5432/…";
  return undefined;
}
