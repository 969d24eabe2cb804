import { randomBytes } from "node:crypto";
import jwt from "jsonwebtoken";
import { Client as Postgres } from "pg";
import { asSystem, call } from "../../broker/contract";
import { disable } from "../../contracts/accounts";
import { revocations } from "../../contracts/users";
import { until } from "../../testkit/until";
import { Client, type ApiResponse } from "../../testkit/client";
import { EventStream } from "./event-stream";
import { testId } from "../../testkit/ids";
import { ADMIN } from "../../testkit/admin";
import { startShop, urlOf, type Shop } from "../../testkit/shop";

/** The API promises 2 s; the rest allows for a busy machine. */
const SOON_MS = 2_500;
/** Streams without periodic reads, so that only the session can end them. */
const NEVER = 3_600_000;

/** Two gateways and two users nodes, so that changes by one must take effect at the other. */
let shop: Shop;
let gateways: Client[];
let admin: Client;
let adminId: string;
beforeAll(async () => {
  shop = await startShop({
    nodes: [["api"], ["api"], ["users"], ["users"], ["products"], ["orders"]],
    limits: { streams: { readEveryMs: NEVER } },
  });
  gateways = shop.nodes.slice(0, 2).map((node) => new Client(urlOf(node)));
  admin = await shop.client().login(ADMIN.email, ADMIN.password);
  adminId = String((await admin.get("/me")).body["id"]);
});
afterAll(() => shop.stop());

async function inUsers<T extends object>(sql: string, values: unknown[] = []): Promise<T[]> {
  const database = new Postgres(shop.databases.users.url);
  await database.connect();
  return (await database.query<T>(sql, values).finally(() => database.end())).rows;
}

const isSomebodyWaiting = async (): Promise<boolean> =>
  (await inUsers("select from pg_locks l join pg_stat_activity using (pid) where not granted and datname = current_database()")).length > 0;

interface Person {
  id: string;
  email: string;
  password: string;
}
interface Session {
  access_token: string;
  refresh_token: string;
}

const anywhere = (): Client => gateways[Math.floor(Math.random() * gateways.length)]!;
async function register(): Promise<Person> {
  const credentials = { email: `${randomBytes(8).toString("hex")}@shop.test`, password: "correct horse battery" };
  const { status, body } = await anywhere().post("/register", credentials);
  expect(status).toBe(201);
  return { ...credentials, id: String(body["id"]) };
}
const tryLogin = ({ email, password }: Person): Promise<ApiResponse> => anywhere().post("/token", { email, password });
async function logIn(person: Person): Promise<Session> {
  const { status, body } = await tryLogin(person);
  expect(status).toBe(200);
  return body as unknown as Session;
}
const refresh = ({ refresh_token }: Session): Promise<ApiResponse> => anywhere().post("/token/refresh", { refresh_token });
const patch = (id: string, changes: object, token = admin.token): Promise<ApiResponse> =>
  anywhere().request("PATCH", `/admin/users/${id}`, changes, { token });
async function set(id: string, changes: object): Promise<void> {
  const { status, body } = await patch(id, changes);
  expect([status, body]).toMatchObject([200, { id, ...changes }]);
}
const code = ({ status, body }: ApiResponse): unknown => [status, body["code"]];

/** Waits until each gateway responds with the status. */
const everywhere = (what: string, path: string, { access_token }: Session, status: number): Promise<unknown> =>
  Promise.all(
    gateways.map((gateway) => until(what, async () => (await gateway.get(path, { token: access_token })).status === status, SOON_MS)),
  );
const follow = (gateway: Client, token: string, order: string): Promise<EventStream> => {
  const client = new Client(gateway.url);
  client.token = token;
  return EventStream.open(client, order);
};

/** Places an order and waits until it is confirmed; its streams stay open. */
async function confirmed(token: string): Promise<string> {
  const client = new Client(shop.url);
  client.token = token;
  const id = String((await client.order(await client.createProduct(), 1)).body["id"]);
  expect(await client.decided(id)).toMatchObject({ status: "CONFIRMED" });
  return id;
}

describe("a user who is missing after user_db was restored from a backup", () => {
  it("loses tokens and open streams within 2 s on every gateway, and a new account gets another id", async () => {
    const person = await register();
    const neighbour = await logIn(await register());
    const session = await logIn(person);
    const order = await confirmed(session.access_token);
    const streams = await Promise.all(gateways.map((gateway) => follow(gateway, session.access_token, order)));
    await Promise.all(streams.map((stream) => stream.has("PENDING", "CONFIRMED")));

    await inUsers("delete from sessions where user_id = $1", [person.id]);
    await inUsers("delete from known_addresses where user_id = $1", [person.id]);
    await inUsers("delete from users where id = $1", [person.id]);
    await until("the streams end", () => streams.every(({ state }) => state === "ended"), SOON_MS);
    await everywhere("its token is refused where users is not asked", `/orders/${order}`, session, 401);
    expect(code(await refresh(session))).toEqual([401, "INVALID_REFRESH_TOKEN"]);
    expect((await register()).id).not.toBe(person.id);
    expect((await anywhere().get("/orders", { token: neighbour.access_token })).status).toBe(200);
  });

  it("is refused within 2 s of the first use of the token, if it is first used after the restore", async () => {
    const session = await logIn(await register());
    const { sid } = jwt.decode(session.access_token) as { sid: string };
    await inUsers("delete from sessions where id = $1", [sid]);
    await everywhere("its token is refused where users is not asked", "/orders", session, 401);
  });
});

describe("a disabled user", () => {
  it("loses tokens, refresh tokens, logins and open streams within 2 s on every gateway", async () => {
    const person = await register();
    const neighbour = await logIn(await register());
    const sessions = [await logIn(person), await logIn(person)];
    const order = await confirmed(sessions[0]!.access_token);
    const streams = await Promise.all(gateways.map((gateway) => follow(gateway, sessions[0]!.access_token, order)));
    await Promise.all(streams.map((stream) => stream.has("PENDING", "CONFIRMED")));

    await set(person.id, { disabled: true });
    const since = performance.now();
    // The streams must end before any other request is sent.
    await until("the streams end", () => streams.every(({ state }) => state === "ended"), SOON_MS);
    for (const session of sessions) await everywhere("its token is refused", "/me", session, 401);
    expect(performance.now() - since).toBeLessThan(SOON_MS);

    for (const session of sessions) expect(code(await refresh(session))).toEqual([401, "INVALID_REFRESH_TOKEN"]);
    expect(code(await tryLogin(person))).toEqual([401, "INVALID_CREDENTIALS"]);
    expect(code(await anywhere().post("/register", { email: person.email, password: person.password }))).toEqual([409, "EMAIL_TAKEN"]);
    const again = await follow(gateways[1]!, sessions[0]!.access_token, order);
    await again.end();
    expect(again.status).toBe(401);
    expect((await anywhere().get("/me", { token: neighbour.access_token })).status).toBe(200);
  });

  it("also loses streams within 2 s that have outlived the deadline of the request that opened them", async () => {
    const person = await register();
    const { access_token } = await logIn(person);
    const stream = await follow(gateways[1]!, access_token, await confirmed(access_token));
    const opened = performance.now();
    await until("the deadline of any request has passed", () => performance.now() - opened > 5_500);
    expect(stream.state).toBe("open");
    await call(shop.node("users"), disable, { id: person.id }, asSystem());
    await until("the stream ends", () => stream.state === "ended", SOON_MS);
  });

  it("can log in when enabled again, and earlier sessions stay ended", async () => {
    const person = await register();
    const before = await logIn(person);
    await set(person.id, { disabled: true });
    await set(person.id, { disabled: true }); // a repeated change has no effect
    await set(person.id, { disabled: false });
    await everywhere("the old token is refused", "/me", before, 401);
    expect(code(await refresh(before))).toEqual([401, "INVALID_REFRESH_TOKEN"]);
    const after = await logIn(person);
    for (const gateway of gateways) expect((await gateway.get("/me", { token: after.access_token })).status).toBe(200);
    expect((await refresh(after)).status).toBe(200);
  });

  it("gets exactly the response of a wrong password", async () => {
    const person = await register();
    const wrong = await tryLogin({ ...person, password: "wrong" });
    await set(person.id, { disabled: true });
    const { request_id: _one, ...expected } = wrong.body;
    const { request_id: _other, ...body } = (await tryLogin(person)).body;
    expect(body).toEqual(expected);
  });

  it("has no session left, even when disabled during repeated logins and refreshes", async () => {
    for (let round = 0; round < 5; round++) {
      const person = await register();
      const sessions = await Promise.all([1, 2, 3, 4].map(() => logIn(person)));
      const responses = await Promise.all([
        ...sessions.map(refresh),
        tryLogin(person),
        tryLogin(person),
        patch(person.id, { disabled: true }),
        tryLogin(person),
        tryLogin(person),
      ]);
      expect(responses[6]!.status).toBe(200);
      expect(await inUsers("select id from sessions where user_id = $1 and ended_at is null", [person.id])).toEqual([]);
      for (const { body } of responses.filter((response) => response.status === 200 && "refresh_token" in response.body))
        expect(code(await refresh(body as Session))).toEqual([401, "INVALID_REFRESH_TOKEN"]);
    }
  });

  it.each([
    ["logs in", tryLogin, "INVALID_CREDENTIALS"],
    ["refreshes", (_person: Person, session: Session) => refresh(session), "INVALID_REFRESH_TOKEN"],
  ])("who %s while the change is being written gets no tokens", async (_what, act, refusal) => {
    const person = await register();
    const session = await logIn(person);
    const database = new Postgres(shop.databases.users.url);
    await database.connect();
    await database.query("begin");
    await database.query("update users set disabled_at = now() where id = $1", [person.id]);
    await database.query("update sessions set ended_at = now() where user_id = $1", [person.id]);
    let responded = false;
    const acting = act(person, session).finally(() => (responded = true));
    await until("the request waits for the change", async () => responded || (await isSomebodyWaiting()));
    await database.query("commit").finally(() => database.end());
    expect(code(await acting)).toEqual([401, refusal]);
  });
});

describe("a demoted admin", () => {
  it("gets 403 within 2 s on every gateway, and keeps the session as a user; streams of other users' orders end", async () => {
    const person = await register();
    await set(person.id, { role: "admin" });
    const session = await logIn(person);
    await everywhere("an admin's route is open", "/admin/outbox", session, 200);
    const order = await confirmed(admin.token!);
    const stream = await follow(gateways[1]!, session.access_token, order);
    await stream.has("PENDING", "CONFIRMED");

    await set(person.id, { role: "user" });
    await until("the stream ends", () => stream.state === "ended", SOON_MS);
    await everywhere("an admin route is refused", "/admin/outbox", session, 403);
    const me = await anywhere().get("/me", { token: session.access_token });
    expect([me.status, me.body["role"]]).toEqual([200, "user"]);
    const renewed = await refresh(session);
    expect(renewed.status).toBe(200);
    for (const gateway of gateways)
      expect((await gateway.get("/admin/outbox", { token: String(renewed.body["access_token"]) })).status).toBe(403);
  });

  it("with a refresh in flight gets a token with the old role, which counts as a user's until it expires", async () => {
    const person = await register();
    await set(person.id, { role: "admin" });
    const session = await logIn(person);
    const database = new Postgres(shop.databases.users.url);
    await database.connect();
    await database.query("begin");
    await database.query("select from sessions where user_id = $1 for update", [person.id]);
    const refreshing = refresh(session);
    await until("the refresh waits for its session", isSomebodyWaiting);
    await set(person.id, { role: "user" });
    await inUsers("update users set role_changed_at = role_changed_at - interval '2 s' where id = $1", [person.id]); // simulates a long wait
    await database.query("commit").finally(() => database.end());
    const token = String((await refreshing).body["access_token"]);
    const { role, exp } = jwt.decode(token) as { role: string; exp: number };
    expect(role).toBe("admin");
    await everywhere("an admin route is refused", "/admin/outbox", { access_token: token, refresh_token: "" }, 403);
    const { roles = [] } = await call(shop.node("users"), revocations, {});
    expect(roles.find(({ user }) => user === person.id)?.until).toBeGreaterThanOrEqual(exp);
  });

  it("can't change accounts in the meantime, even if a gateway doesn't know about the change yet", async () => {
    const person = await register();
    const become = (role: string) => inUsers("update users set role = $2 where id = $1", [person.id, role]); // gateways aren't notified
    await become("admin");
    const session = await logIn(person);
    await become("user");
    expect((await anywhere().get("/admin/outbox", { token: session.access_token })).status).toBe(200);
    expect(code(await patch(person.id, { role: "admin" }, session.access_token))).toEqual([403, "FORBIDDEN"]);
  });

  it("who is promoted again is an admin within 2 s with the same token, and with the next one", async () => {
    const person = await register();
    await set(person.id, { role: "admin" });
    const session = await logIn(person);
    await set(person.id, { role: "user" });
    await everywhere("closed", "/admin/outbox", session, 403);
    await set(person.id, { role: "admin" });
    await everywhere("open", "/admin/outbox", session, 200);
    await everywhere("open by the next token", "/admin/outbox", (await refresh(session)).body as unknown as Session, 200);
  });

  it("who was a user before: a promotion takes effect within 2 s with the same token", async () => {
    const person = await register();
    const session = await logIn(person);
    await everywhere("closed", "/admin/outbox", session, 403);
    await set(person.id, { role: "admin" });
    await everywhere("open", "/admin/outbox", session, 200);
    await set(person.id, { role: "user" });
  });
});

describe("a user who was promoted after the backup from which user_db is restored", () => {
  const ADMINS_OWN = "/admin/outbox";
  const fallBack = (id: string) => inUsers("update users set role = 'user', role_changed_at = null where id = $1", [id]);

  it("is no longer an admin within 2 s on every gateway, with the older token", async () => {
    const person = await register();
    const session = await logIn(person);
    await set(person.id, { role: "admin" });
    await everywhere("an admin's route is open", ADMINS_OWN, session, 200);
    await fallBack(person.id);
    await everywhere("an admin route is refused", ADMINS_OWN, session, 403);
  });

  it("is no admin with a refreshed token that contains the role, even if another token is used at the same time", async () => {
    const person = await register();
    const session = await logIn(person);
    await set(person.id, { role: "admin" });
    const renewed = (await refresh(session)).body as unknown as Session;
    expect(jwt.decode(renewed.access_token)).toMatchObject({ role: "admin" });
    await everywhere("an admin's route is open", ADMINS_OWN, renewed, 200);
    await fallBack(person.id);
    await Promise.all(
      gateways.map((gateway) =>
        until(
          "an admin route is refused",
          async () => {
            const { status } = await gateway.get(ADMINS_OWN, { token: renewed.access_token });
            await gateway.get("/orders", { token: session.access_token });
            return status === 403;
          },
          SOON_MS,
        ),
      ),
    );
  });

  it("is an admin again with the same token, if it was a demotion that came after the backup", async () => {
    const person = await register();
    const session = await logIn(person);
    await set(person.id, { role: "admin" });
    await everywhere("open", ADMINS_OWN, session, 200);
    await set(person.id, { role: "user" });
    await everywhere("closed", ADMINS_OWN, session, 403);
    await inUsers("update users set role = 'admin', role_changed_at = null where id = $1", [person.id]);
    await everywhere("open again", ADMINS_OWN, session, 200);
    await set(person.id, { role: "user" });
  });
});

describe("the last admin", () => {
  const onlyAdmin = () => inUsers("update users set role = 'user' where role = 'admin' and id <> $1", [adminId]);

  it.each([{ role: "user" }, { disabled: true }, { disabled: true, role: "user" }])("can't be changed by %j → 409", async (changes) => {
    await onlyAdmin();
    expect(code(await patch(adminId, changes))).toEqual([409, "LAST_ADMIN"]);
    expect((await admin.get("/admin/outbox")).status).toBe(200);
  });

  it("is left, however admins demote and disable each other at the same moment", async () => {
    for (let round = 0; round < 5; round++) {
      await onlyAdmin();
      const other = await register();
      await set(other.id, { role: "admin" });
      const { access_token } = await logIn(other);
      const responses = await Promise.all(
        round % 2 === 0
          ? [patch(adminId, { role: "user" }), patch(other.id, { disabled: true }, access_token)] // each removes itself
          : [patch(other.id, { role: "user" }), patch(adminId, { disabled: true }, access_token)], // each removes the other
      );
      expect(responses.map(({ status }) => status).sort()).toEqual([200, round % 2 === 0 ? 409 : 403]);
      expect(await inUsers("select id from users where role = 'admin' and disabled_at is null")).toHaveLength(1);
      await inUsers("update users set role = 'admin', disabled_at = null, role_changed_at = clock_timestamp() where id = $1", [adminId]);
      admin = await admin.login(ADMIN.email, ADMIN.password);
      await everywhere("the admin is back", "/admin/outbox", { access_token: String(admin.token), refresh_token: "" }, 200);
    }
  }, 60_000);
});

describe("an account, for admins", () => {
  it("is found by its e-mail in upper or lower case, and by no other", async () => {
    const { id, email } = await register();
    const found = await admin.get(`/admin/users?email=${encodeURIComponent(email.toUpperCase())}`);
    expect([found.status, found.headers.get("cache-control")]).toEqual([200, "no-store"]);
    expect(found.body).toEqual({ id, email, role: "user", disabled: false, created_at: expect.stringMatching(/^\d{4}-.*Z$/) });
    expect(code(await admin.get("/admin/users?email=nobody@shop.test"))).toEqual([404, "USER_NOT_FOUND"]);
  });

  it.each(["", "?email=", "?mail=a@b.co", "?email=a%00@b.co", "?email=a@b.co&all=true", "?email=a@b.co&email=c@d.co"])(
    "%s → 400",
    async (query) => {
      expect(code(await admin.get(`/admin/users${query}`))).toEqual([400, "BAD_REQUEST"]);
    },
  );

  it.each([
    [{ role: "root" }, 422, "VALIDATION_ERROR"],
    [{ disabled: "yes" }, 422, "VALIDATION_ERROR"],
    [{ disabled: null }, 422, "VALIDATION_ERROR"],
    [{ email: "a@b.co" }, 422, "VALIDATION_ERROR"],
    [{ id: 1 }, 422, "VALIDATION_ERROR"],
    [{ system: true }, 422, "VALIDATION_ERROR"],
  ])("changed by %j → %i", async (changes, status, refusal) => {
    expect(code(await patch((await register()).id, changes))).toEqual([status, refusal]);
  });

  it("that does not exist → 404", async () => {
    for (const id of [testId(99_999_999), "abc"]) expect(code(await patch(id, { disabled: true }))).toEqual([404, "USER_NOT_FOUND"]);
  });
});
