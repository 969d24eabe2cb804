import { randomBytes } from "node:crypto";
import jwt from "jsonwebtoken";
import { Client as Postgres } from "pg";
import type { Service } from "moleculer";
import { asSystem, call } from "../../../broker/contract";
import { disable } from "../../../contracts/accounts";
import { revocations, rotateKeys } from "../../../contracts/users";
import { until } from "../../../testkit/until";
import { Client, type ApiResponse } from "../../../testkit/client";
import { ADMIN } from "../../../testkit/admin";
import { startShop, urlOf, type Shop } from "../../../testkit/shop";

/** Two gateways and two users nodes, so that changes by one must take effect at the other. */
let shop: Shop;
let gateways: Client[];

beforeAll(async () => {
  shop = await startShop({ nodes: [["api"], ["api"], ["users"], ["users"]] });
  gateways = shop.nodes.slice(0, 2).map((node) => new Client(urlOf(node)));
});
afterAll(() => shop.stop());

async function inUsers<T extends object>(sql: string, values: unknown[] = []): Promise<T[]> {
  const database = new Postgres(shop.databases.users.url);
  await database.connect();
  return (await database.query<T>(sql, values).finally(() => database.end())).rows;
}

interface Session {
  access_token: string;
  refresh_token: string;
}
interface Person {
  email: string;
  password: string;
}

const anywhere = (): Client => gateways[Math.floor(Math.random() * gateways.length)]!;

async function register(): Promise<Person> {
  const person = { email: `${randomBytes(8).toString("hex")}@shop.test`, password: "correct horse battery" };
  expect((await anywhere().post("/register", person)).status).toBe(201);
  return person;
}
async function logIn(person: Person): Promise<Session> {
  const { status, headers, body } = await anywhere().post<Session>("/token", person);
  expect([status, headers.get("cache-control"), headers.get("pragma")]).toEqual([200, "no-store", "no-cache"]);
  return body;
}
const refresh = ({ refresh_token }: Session): Promise<ApiResponse<Session>> => anywhere().post("/token/refresh", { refresh_token });
const logOut = (refresh_token: string): Promise<ApiResponse> => anywhere().post("/logout", { refresh_token });
const refusal = ({ status, body }: ApiResponse): unknown => [status, body["code"]];

const sessionOf = ({ access_token }: Session): string => (jwt.decode(access_token) as { sid: string }).sid;

/** Lets the used refresh tokens of a session age by so many seconds. */
const age = (session: Session, seconds: number) =>
  inUsers("update refresh_tokens set used_at = used_at - $2 * interval '1 second' where session_id = $1", [sessionOf(session), seconds]);
/** Makes the first use of a session's refresh tokens recent, after a test that takes long. */
const rejuvenate = (session: Session) =>
  inUsers("update refresh_tokens set used_at = now() where session_id = $1 and used_at is not null", [sessionOf(session)]);

/** Waits until an access token is refused; the API promises 2 s. */
async function expectEnded({ access_token }: Session): Promise<void> {
  for (const gateway of gateways)
    await until(
      "the access token is refused",
      async () => (await gateway.get("/me", { token: access_token })).body["code"] === "UNAUTHENTICATED",
      2_500,
    );
}
async function expectAlive({ access_token }: Session): Promise<void> {
  for (const gateway of gateways) expect((await gateway.get("/me", { token: access_token })).status).toBe(200);
}

describe("a refresh token", () => {
  it("is exchanged for a new pair of the same session, repeatedly", async () => {
    let session = await logIn(await register());
    const id = (token: string) => (jwt.decode(token) as { sid: string }).sid;
    const first = id(session.access_token);
    for (let i = 0; i < 3; i++) {
      const { status, headers, body } = await refresh(session);
      expect([status, headers.get("cache-control")]).toEqual([200, "no-store"]);
      expect(body).toEqual({
        access_token: expect.any(String),
        token_type: "bearer",
        expires_in: 900,
        refresh_token: expect.stringMatching(/^[\w-]{43}$/),
      });
      expect(body.refresh_token).not.toBe(session.refresh_token);
      expect(id(body.access_token)).toBe(first);
      await expectAlive(body);
      session = body;
    }
  });

  it("that is used again later than REFRESH_GRACE → 401, and its whole family is revoked, including access tokens", async () => {
    const first = await logIn(await register());
    const { body: second } = await refresh(first);
    await age(first, 10);
    const again = await refresh(first);
    expect(refusal(again)).toEqual([401, "INVALID_REFRESH_TOKEN"]);
    expect(again.headers.get("www-authenticate")).toMatch(/^Bearer/);
    expect(refusal(await refresh(second))).toEqual([401, "INVALID_REFRESH_TOKEN"]);
    for (const session of [first, second]) await expectEnded(session);
  });

  it("that has expired → 401; each refresh extends the expiry", async () => {
    const person = await register();
    const { body: session } = await refresh(await logIn(person));
    const ends =
      "select extract(epoch from expires_at - now())::int as seconds from sessions s join users u on u.id = user_id where email = $1";
    expect((await inUsers<{ seconds: number }>(ends, [person.email]))[0]!.seconds).toBeGreaterThan(2_591_000);
    await inUsers("update sessions set expires_at = now() where user_id = (select id from users where email = $1)", [person.email]);
    expect(refusal(await refresh(session))).toEqual([401, "INVALID_REFRESH_TOKEN"]);
  });

  it("is not accepted as an access token, nor the reverse", async () => {
    const session = await logIn(await register());
    expect(refusal(await anywhere().get("/me", { token: session.refresh_token }))).toEqual([401, "UNAUTHENTICATED"]);
    expect(refusal(await refresh({ ...session, refresh_token: session.access_token }))).toEqual([401, "INVALID_REFRESH_TOKEN"]);
    await expectAlive(session);
  });

  it("that was never issued, or is malformed → 401 or 422", async () => {
    expect(refusal(await refresh({ access_token: "", refresh_token: "x".repeat(43) }))).toEqual([401, "INVALID_REFRESH_TOKEN"]);
    for (const body of [{}, { refresh_token: "" }, { refresh_token: 7 }, { refresh_token: "a\0" }, { refresh_token: "a", role: "admin" }])
      expect(refusal(await anywhere().post("/token/refresh", body))).toEqual([422, "VALIDATION_ERROR"]);
  });

  it("is stored only as a hash", async () => {
    const { refresh_token } = await logIn(await register());
    const rows = await inUsers<object>("select t.*, s.* from refresh_tokens t join sessions s on s.id = session_id");
    expect(JSON.stringify(rows)).not.toContain(refresh_token);
    expect(rows.every((row) => "hash" in row && Buffer.isBuffer(row.hash) && row.hash.length === 32)).toBe(true);
  });
});

describe("a refresh token that is used again within REFRESH_GRACE", () => {
  const expiryOf = async (session: Session): Promise<Date> =>
    (await inUsers<{ expires_at: Date }>("select expires_at from sessions where id = $1", [sessionOf(session)]))[0]!.expires_at;

  it("gets the same successor on every node, and the session continues and expires as after the first use", async () => {
    const first = await logIn(await register());
    const { body: second } = await refresh(first);
    const expiry = await expiryOf(first);
    for (let i = 0; i < 6; i++) {
      const { status, headers, body } = await refresh(first);
      expect([status, headers.get("cache-control"), body.refresh_token]).toEqual([200, "no-store", second.refresh_token]);
      expect([sessionOf(body), body.access_token === second.access_token]).toEqual([sessionOf(first), false]);
      await expectAlive(body);
    }
    expect(await expiryOf(first)).toEqual(expiry);
    const { status, body: third } = await refresh(second);
    expect([status, third.refresh_token === second.refresh_token]).toEqual([200, false]);
    expect((await refresh(first)).body.refresh_token).toBe(second.refresh_token); // although the successor has been used
    await expectAlive(third);
  });

  it("ten times at once gets one successor", async () => {
    const session = await logIn(await register());
    const responses = await Promise.all(Array.from({ length: 10 }, () => refresh(session)));
    expect(responses.map(({ status }) => status)).toEqual(Array<number>(10).fill(200));
    expect(new Set(responses.map(({ body }) => body.refresh_token)).size).toBe(1);
    expect(await inUsers("select from refresh_tokens where session_id = $1", [sessionOf(session)])).toHaveLength(2);
    expect((await refresh(responses[9]!.body)).status).toBe(200);
  });

  it("leaves nothing but hashes in the database", async () => {
    const first = await logIn(await register());
    const { body: second } = await refresh(first);
    await refresh(first);
    const rows = JSON.stringify(await inUsers("select t.*, s.* from refresh_tokens t join sessions s on s.id = t.session_id"));
    for (const { refresh_token } of [first, second])
      for (const form of [refresh_token, Buffer.from(refresh_token, "base64url").toString("hex")]) expect(rows).not.toContain(form);
  });

  it.each<[string, (session: Session) => Promise<unknown>]>([
    ["after a logout", ({ refresh_token }) => logOut(refresh_token)],
    ["after its session expired", (session) => inUsers("update sessions set expires_at = now() where id = $1", [sessionOf(session)])],
    [
      "whose user is disabled",
      async (session) => {
        const { sub: id } = jwt.decode(session.access_token) as { sub: string };
        await call(shop.node("users"), disable, { id }, asSystem());
      },
    ],
  ])("%s → 401", async (_when, happens) => {
    const first = await logIn(await register());
    const { body: second } = await refresh(first);
    await happens(first);
    for (const session of [first, second]) expect(refusal(await refresh(session))).toEqual([401, "INVALID_REFRESH_TOKEN"]);
  });

  it.each<[string, (session: Session) => Promise<unknown>]>([
    ["but was first used in the future, before the database's clock was set back,", (session) => age(session, -3_600)],
    [
      "but was replaced by a token that no key derives, as by a node of 0.2.0,",
      (session) => inUsers("update refresh_tokens set hash = sha256(hash) where session_id = $1 and used_at is null", [sessionOf(session)]),
    ],
  ])("%s counts as reused: its session ends", async (_what, happens) => {
    const first = await logIn(await register());
    const { body: second } = await refresh(first);
    await happens(first);
    expect(refusal(await refresh(first))).toEqual([401, "INVALID_REFRESH_TOKEN"]);
    await expectEnded(second);
  });
});

describe("with REFRESH_GRACE=0, a refresh token", () => {
  let strict: Shop;
  beforeAll(async () => {
    strict = await startShop({ env: { REFRESH_GRACE: "0" } });
  });
  afterAll(() => strict.stop());

  it("that is used ten times at once works at most once, and its session ends", async () => {
    const client = strict.client();
    const { body: session } = await client.post<Session>("/token", ADMIN);
    const post = ({ refresh_token }: Session) => client.post<Session>("/token/refresh", { refresh_token });
    const responses = await Promise.all(Array.from({ length: 10 }, () => post(session)));
    const good = responses.filter(({ status }) => status === 200);
    expect(good).toHaveLength(1);
    expect(refusal(await post(good[0]!.body))).toEqual([401, "INVALID_REFRESH_TOKEN"]);
  });
});

describe("while sixteen sessions of a user refresh without a pause", () => {
  const work = new Set<Promise<void>>();
  let isOver: boolean;
  let refreshed: number;
  let person: Person;

  async function keepRefreshing(session: Session): Promise<void> {
    while (!isOver) {
      const { status, body } = await refresh(session);
      if (status !== 200) return;
      refreshed++;
      session = body;
    }
  }

  beforeEach(async () => {
    [isOver, refreshed, person] = [false, 0, await register()];
    const sessions = await Promise.all(Array.from({ length: 16 }, () => logIn(person)));
    for (const session of sessions) work.add(keepRefreshing(session));
    await until("all of them are refreshing", () => refreshed > 160);
  });
  afterEach(async () => {
    isOver = true;
    await Promise.all(work);
    work.clear();
  });

  it("an admin can disable the account, and all sessions end", async () => {
    const [{ id }] = (await inUsers<{ id: string }>("select id from users where email = $1", [person.email])) as [{ id: string }];
    // If refreshes kept the user's row locked, the statement would run into its lock timeout, before that of this call.
    await call(shop.node("users"), disable, { id }, { ...asSystem(), timeout: 30_000 });
    const before = refreshed;
    await Promise.all(work); // each loop ends at its first refusal
    expect(refreshed - before).toBeLessThanOrEqual(16); // responses that were in flight
  });

  it("the user can set a new password", async () => {
    const session = await logIn(person);
    const passwords = { current_password: person.password, new_password: "another horse" };
    expect((await anywhere().request("PUT", "/me/password", passwords, { token: session.access_token })).status).toBe(204);
  });
});

describe("logout", () => {
  it("ends that session within 2 s at every gateway, and no other session of the user", async () => {
    const person = await register();
    const [here, there] = [await logIn(person), await logIn(person)];
    await expectAlive(here);
    expect((await logOut(here.refresh_token)).status).toBe(204);
    await expectEnded(here);
    expect(refusal(await refresh(here))).toEqual([401, "INVALID_REFRESH_TOKEN"]);
    await expectAlive(there);
    expect((await refresh(there)).status).toBe(200);
  });

  it("with a used refresh token ends the session as well; with an unknown one, or a second time → 204", async () => {
    const first = await logIn(await register());
    const { body: second } = await refresh(first);
    for (const token of [first.refresh_token, first.refresh_token, "unknown", second.access_token])
      expect((await logOut(token)).status).toBe(204);
    await expectEnded(second);
  });
});

it("the 101st session of a user ends the oldest one, and no other", async () => {
  const [person, neighbour] = [await register(), await register()];
  const [first, second, other] = [await logIn(person), await logIn(person), await logIn(neighbour)];
  await inUsers(
    `insert into sessions (user_id, expires_at) select id, now() + interval '1 day' from users, generate_series(1, 98) where email = $1`,
    [person.email],
  );
  const live = () => inUsers("select from sessions s join users u on u.id = user_id where email = $1 and ended_at is null", [person.email]);
  await expectAlive(first);
  expect(await live()).toHaveLength(100);
  const last = await logIn(person);
  expect(await live()).toHaveLength(100);
  await expectEnded(first);
  expect(refusal(await refresh(first))).toEqual([401, "INVALID_REFRESH_TOKEN"]);
  for (const session of [second, last, other]) await expectAlive(session);
});

it("after the database's clock, which was an hour ahead, is set back, gateways still notice sessions that end", async () => {
  const session = await logIn(await register());
  const { sid, sub } = jwt.decode(session.access_token) as { sid: string; sub: string };
  expect((await logOut(session.refresh_token)).status).toBe(204);
  await inUsers("update users set role_changed_at = now() where id = $1", [sub]);
  const { ended, roles } = await call(shop.node("users"), revocations, { since: new Date(Date.now() + 3_600_000).toISOString() });
  expect(ended.map((one) => one.session)).toContain(sid);
  expect(roles?.map(({ user }) => user)).toContain(sub);
});

it("ten thousand sessions that end at the same moment do not hide later ones", async () => {
  const person = await register();
  await inUsers(
    `insert into sessions (user_id, expires_at, ended_at) select id, now() + interval '1 day', now() from users, generate_series(1, 10001)
     where email = $1`,
    [person.email],
  );
  const session = await logIn(person);
  await expectAlive(session);
  expect((await logOut(session.refresh_token)).status).toBe(204);
  await expectEnded(session);
}, 20_000);

describe("a new password", () => {
  const change = (session: Session, current_password: string, new_password: string): Promise<ApiResponse> =>
    anywhere().request("PUT", "/me/password", { current_password, new_password }, { token: session.access_token });

  it("ends all other sessions of the user; the session that set it continues, and the old password no longer works", async () => {
    const person = await register();
    const [mine, other] = [await logIn(person), await logIn(person)];
    const neighbour = await logIn(await register());
    expect((await change(mine, person.password, "another horse")).status).toBe(204);
    await expectEnded(other);
    expect(refusal(await refresh(other))).toEqual([401, "INVALID_REFRESH_TOKEN"]);
    await expectAlive(mine);
    expect((await refresh(mine)).status).toBe(200);
    await expectAlive(neighbour);
    expect(refusal(await anywhere().post("/token", person))).toEqual([401, "INVALID_CREDENTIALS"]);
    await logIn({ ...person, password: "another horse" });
  });

  it("with a wrong current one → 401, with one that breaks the rules → 422, without a token → 401; nothing changes", async () => {
    const person = await register();
    const session = await logIn(person);
    expect(refusal(await change(session, "wrong", "another horse"))).toEqual([401, "INVALID_CREDENTIALS"]);
    expect(refusal(await change(session, person.password, "short"))).toEqual([422, "VALIDATION_ERROR"]);
    expect(refusal(await change({ ...session, access_token: "none" }, person.password, "another horse"))).toEqual([401, "UNAUTHENTICATED"]);
    await logIn(person);
  });

  it("that is being written during a login with the old one: the login fails", async () => {
    const person = await register();
    const database = new Postgres(shop.databases.users.url);
    await database.connect();
    await database.query("begin");
    await database.query("update users set password_hash = 'another' where email = $1", [person.email]);
    let responded = false;
    const login = anywhere()
      .post("/token", person)
      .finally(() => (responded = true));
    const isWaiting = async (): Promise<boolean> =>
      (await inUsers("select from pg_locks l join pg_stat_activity using (pid) where not granted and datname = current_database()"))
        .length > 0;
    await until("the login waits for the change", async () => responded || (await isWaiting()));
    await database.query("commit").finally(() => database.end());
    expect(refusal(await login)).toEqual([401, "INVALID_CREDENTIALS"]);
  });

  it("set twice at once with the same current password: only one succeeds", async () => {
    const person = await register();
    const session = await logIn(person);
    const statuses = await Promise.all(["first horse", "second horse"].map((password) => change(session, person.password, password)));
    expect(statuses.map(({ status }) => status).sort()).toEqual([204, 401]);
  });
});

describe("signing keys", () => {
  const kidOf = ({ access_token }: Session): string => jwt.decode(access_token, { complete: true })!.header.kid!;
  const listedKids = async (): Promise<string[]> =>
    (await anywhere().get<{ keys: { kid: string }[] }>("/.well-known/jwks.json")).body.keys.map(({ kid }) => kid);
  const ageKey = (kid: string, seconds: number) =>
    inUsers("update signing_keys set created_at = now() - $2 * interval '1 second' where kid = $1", [kid, seconds]);
  const rotate = async (at_once = false): Promise<string> => (await call(shop.node("users"), rotateKeys, { at_once }, asSystem())).kid;
  /** Nodes reload the keys after a few seconds. */
  const eventually = (what: string, condition: () => Promise<boolean>) => until(what, condition, 15_000);

  it("a new one is published before it signs; the old one's tokens are valid until they expire, and not after", async () => {
    const person = await register();
    const before = await logIn(person);
    const old = kidOf(before);
    const next = await rotate();
    await eventually("both are listed", async () => (await listedKids()).length === 2);
    expect(kidOf(await logIn(person))).toBe(old);

    await ageKey(next, 700);
    await eventually("the new one signs", async () => kidOf(await logIn(person)) === next);
    await expectAlive(before);
    await expectAlive(await logIn(person));

    await ageKey(next, 700 + 900);
    await ageKey(old, 5_000);
    await eventually("the old one is no longer listed", async () => (await listedKids()).length === 1);
    expect(await inUsers("select from signing_keys")).toHaveLength(1);
    await eventually("its tokens are refused", async () => (await anywhere().get("/me", { token: before.access_token })).status === 401);
    expect((await refresh(before)).status).toBe(200);
  }, 60_000);

  it("store the longest TTL of their tokens: after ACCESS_TOKEN_TTL was lowered, ended sessions and changed roles are reported for that long", async () => {
    const person = await register();
    const session = await logIn(person);
    const { sid, sub } = jwt.decode(session.access_token) as { sid: string; sub: string };
    await inUsers("update signing_keys set token_ttl = 5000"); // as written by a node with that TTL
    expect((await logOut(session.refresh_token)).status).toBe(204);
    await inUsers("update sessions set ended_at = now() - interval '1000 s' where id = $1", [sid]);
    await inUsers("update users set role_changed_at = now() - interval '1000 s' where id = $1", [sub]);
    const now = Date.now() / 1_000;
    const { ended, roles } = await call(shop.node("users"), revocations, {});
    expect(ended.find((one) => one.session === sid)?.until).toBeGreaterThan(now + 3_990);
    expect(roles?.find(({ user }) => user === sub)?.until).toBeGreaterThan(now + 3_990);
  });

  it("store a node's TTL before it signs with them; until then they are kept for as long as that TTL", async () => {
    const next = await rotate();
    await ageKey(next, 700);
    await inUsers("update signing_keys set token_ttl = 0"); // as made by a node of an earlier version
    expect((await call(shop.node("users"), revocations, {})).kids).toHaveLength(2);
    for (const { token_ttl } of await inUsers<{ token_ttl: number }>("select token_ttl from signing_keys")) expect(token_ttl).toBe(900);
    const person = await register();
    await eventually("the new one signs, and all know it", async () => {
      const session = await logIn(person);
      const responses = await Promise.all(gateways.map((gateway) => gateway.get("/me", { token: session.access_token })));
      return kidOf(session) === next && responses.every(({ status }) => status === 200);
    });
  }, 30_000);

  it("that are withdrawn at once invalidate every access token, and end no session", async () => {
    const session = await logIn(await register());
    const kid = await rotate(true);
    for (const gateway of gateways)
      await eventually("it is refused", async () => (await gateway.get("/me", { token: session.access_token })).status === 401);
    await eventually("the new one signs on each node", async () =>
      (await Promise.all([listedKids(), listedKids(), listedKids()])).flat().every((one) => one === kid),
    );
    await expectAlive((await refresh(session)).body);
  }, 60_000);

  it("that are replaced still derive the successor of a refresh token that was used before, within REFRESH_GRACE", async () => {
    const [first, other] = [await logIn(await register()), await register()];
    const { body: second } = await refresh(first);
    await ageKey(kidOf(first), 5_000);
    const next = await rotate();
    await ageKey(next, 700);
    await eventually("the new one signs on each node", async () =>
      (await Promise.all([1, 2, 3, 4].map(() => logIn(other)))).every((session) => kidOf(session) === next),
    );
    await rejuvenate(first);
    const again = await refresh(first);
    expect([again.status, again.body.refresh_token]).toEqual([200, second.refresh_token]);
    expect((await refresh(second)).status).toBe(200);
  }, 60_000);

  it("that are withdrawn derive no successor: a refresh token that was used just before counts as reused", async () => {
    const first = await logIn(await register());
    const { body: second } = await refresh(first);
    const kid = await rotate(true);
    await eventually("the new one is the only one on each node", async () =>
      (await Promise.all([listedKids(), listedKids(), listedKids(), listedKids()])).every((kids) => kids.join() === kid),
    );
    await new Promise((resolve) => setTimeout(resolve, 1_100)); // nodes cache the keys for a second
    await rejuvenate(first);
    expect(refusal(await refresh(first))).toEqual([401, "INVALID_REFRESH_TOKEN"]);
    expect(refusal(await refresh(second))).toEqual([401, "INVALID_REFRESH_TOKEN"]);
  }, 60_000);

  it("are renewed after a month, by a single node", async () => {
    const [{ kid }] = (await inUsers<{ kid: string }>("select kid from signing_keys")) as [{ kid: string }];
    await ageKey(kid, 31 * 86_400);
    await eventually("there is a second one", async () => (await listedKids()).length === 2);
    expect(await inUsers("select from signing_keys")).toHaveLength(2);
  }, 60_000);
});

it("only expired rows are deleted", async () => {
  const person = await register();
  const [gone, kept, late] = [await logIn(person), await logIn(person), await logIn(person)];
  const idOf = ({ access_token }: Session): string => (jwt.decode(access_token) as { sid: string }).sid;
  const expire = (session: Session, ago: string) =>
    inUsers("update sessions set expires_at = now() - $2::interval where id = $1", [idOf(session), ago]);
  await expire(gone, "25 hours");
  await expire(late, "1 day"); // an access token may be valid that long
  const { body: next } = await refresh(kept);
  const old = "update refresh_tokens set used_at = used_at - interval '31 days' where session_id = $1";
  await inUsers(old, [idOf(kept)]);
  await inUsers("insert into login_attempts (subject, since) values ('old', now() - interval '2 minutes'), ('new', now())");
  await (shop.node("users").getLocalService("users") as Service & { cleanUp(): Promise<void> }).cleanUp();
  expect(await inUsers("select from sessions where id = any($1::uuid[])", [[idOf(gone), idOf(kept), idOf(late)]])).toHaveLength(2);
  expect(await inUsers("select from login_attempts where subject = any('{old,new}'::bytea[])")).toHaveLength(1);
  expect(await inUsers("select from refresh_tokens where session_id = $1", [idOf(kept)])).toHaveLength(1);
  expect(refusal(await refresh(kept))).toEqual([401, "INVALID_REFRESH_TOKEN"]); // like an unknown token
  expect((await refresh(next)).status).toBe(200);
});

it("a session with more tokens than a statement deletes is deleted in steps, and so are later ones", async () => {
  const person = await register();
  const [many, few] = [await logIn(person), await logIn(person)].map(
    ({ access_token }) => (jwt.decode(access_token) as { sid: string }).sid,
  );
  await inUsers("update sessions set ended_at = now() - interval '25 hours' where id = any($1::uuid[])", [[many, few]]);
  await inUsers(
    "insert into refresh_tokens (hash, session_id, used_at) select sha256(i::text::bytea), $1, now() from generate_series(1, 25000) as i",
    [many],
  );
  // Stands for a statement's timeout.
  await inUsers(
    `create function refuse_many() returns trigger language plpgsql as $$ begin
       if (select count(*) from gone) > 10000 then raise 'too many at once'; end if; return null; end $$`,
  );
  await inUsers(
    `create trigger refuse_many after delete on refresh_tokens referencing old table as gone
     for each statement execute function refuse_many()`,
  );
  await (shop.node("users").getLocalService("users") as Service & { cleanUp(): Promise<void> }).cleanUp();
  await inUsers("drop function refuse_many cascade");
  expect(await inUsers("select from sessions where id = any($1::uuid[])", [[many, few]])).toHaveLength(0);
  expect(await inUsers("select from refresh_tokens where session_id = any($1::uuid[])", [[many, few]])).toHaveLength(0);
}, 20_000);

/** Must be the last test, since users is unavailable afterwards. */
it("while users is unavailable, tokens stay valid", async () => {
  const session = await logIn(await register());
  await expectAlive(session);
  await Promise.all(shop.nodes.slice(2).map((node) => node.stop()));
  for (const gateway of gateways)
    expect(refusal(await gateway.get("/orders", { token: session.access_token }))).toEqual([503, "SERVICE_UNAVAILABLE"]); // no orders node here
  expect(refusal(await anywhere().get("/orders", { token: "none" }))).toEqual([401, "UNAUTHENTICATED"]);
});
