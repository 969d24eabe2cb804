import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { Type, type Static } from "@sinclair/typebox";
import { ServiceBroker, type Service, type ServiceSchema } from "moleculer";
import { DataTypes } from "sequelize";
import { subscribe } from "../../../broker/contract";
import { loadConfig } from "../../../config";
import { closed, event, Id, outboxedEvent } from "../../../contracts/contract";
import type { Database } from "../../../mixins/database";
import { databaseMixin, type WithDatabase } from "../../../mixins/database.mixin";
import { refuse, settle } from "../../../mixins/outbox";
import { outboxMixin, type WithOutbox } from "../../../mixins/outbox.mixin";
import { processOnce, replierMixin, type Inbox } from "../../../mixins/replier.mixin";
import { brokerOptions } from "../../../moleculer.config";
import { until } from "../../../testkit/until";
import { testId } from "../../../testkit/ids";
import { ROOT } from "../../../testkit/repository";
import { createDatabase, type TestDatabase } from "../../../testkit/postgres";
import { uniqueNamespace } from "../../../testkit/shop";

/*
 * Two services that know nothing of shops: invoices are issued, printed and filed. They show that the outbox and the replier are generic.
 */

const Invoice = closed({ invoice: Id, user_id: Type.Optional(Id), pages: Type.Integer({ minimum: 1 }) });
const ABOUT = { list: "invoices", subject: "invoice", item: Invoice };
const issued = outboxedEvent("invoice.issued", { ...ABOUT, repliedBy: "printer" });
const archived = outboxedEvent("invoice.archived", { ...ABOUT, repliedBy: "archive" });
const Printed = closed({ invoice: Id, sheets: Type.Integer() });
const printed = event("print.settled", closed({ invoices: Type.Array(Printed) }));
const Jammed = closed({ invoice: Id, event: Type.String(), permanent: Type.Boolean(), message: Type.String() });
const jammed = event("print.refused", closed({ invoices: Type.Array(Jammed) }));

const LIMITS = { retryMs: 60_000, retryMaxMs: 60_000, maxInFlight: 100, batch: 100 };
const MODEL = { name: "outbox", define: { id: { type: DataTypes.BIGINT, primaryKey: true } } };

type Invoices = Service & WithDatabase & WithOutbox;

const invoices = (url: string, migrations: string): ServiceSchema => ({
  name: "invoices",
  mixins: [outboxMixin([issued, archived], LIMITS), databaseMixin({ service: "invoices", url, migrations, model: MODEL })],
  events: {
    [printed.name]: subscribe(printed, async function (this: Invoices, ctx) {
      const replies = ctx.params.invoices.map(({ invoice }) => ({ subject: invoice, events: [issued.name] }));
      await this.db.transaction((query) => settle(query, replies));
      this.relayHeldBack();
    }),
    [jammed.name]: subscribe(jammed, async function (this: Invoices, ctx) {
      const refusals = ctx.params.invoices.map(({ invoice, ...refusal }) => ({ subject: invoice, ...refusal }));
      await this.db.transaction((query) => refuse(query, refusals));
      this.relayHeldBack();
    }),
  },
});

const INBOX: Inbox<Static<typeof Invoice>, Static<typeof Printed>> = {
  subjectOf: ({ invoice }) => invoice,
  insert: async (query, items) => {
    const rows = await query<{ id: string }>(
      `insert into prints (id, sheets) select id, (pages + 1) / 2 from unnest($1::uuid[], $2::int[]) as i (id, pages) order by id
       on conflict (id) do nothing returning id`,
      [items.map(({ invoice }) => invoice), items.map(({ pages }) => pages)],
    );
    return new Set(rows.map(({ id }) => id));
  },
  read: (query, ids) => query("select id as invoice, sheets from prints where id = any($1)", [ids]),
};

const printer = (url: string, migrations: string): ServiceSchema => ({
  name: "printer",
  mixins: [
    replierMixin(issued, { settled: printed, refused: jammed }, async function (this: Service & WithDatabase, invoice) {
      const outcomes = await processOnce(this.db, INBOX, [invoice], async (query, fresh) => {
        await query("update paper set used = used + $1", [fresh.length]);
        return INBOX.read(
          query,
          fresh.map(({ invoice }) => invoice),
        );
      });
      return outcomes[0]!;
    }),
    databaseMixin({ service: "printer", url, migrations, model: { ...MODEL, name: "prints" } }),
  ],
});

/** Listens to everything, and replies to nothing. */
const mailer: ServiceSchema = { name: "mailer", events: { [issued.name]: () => undefined, [archived.name]: () => undefined } };

const namespace = uniqueNamespace();
const brokers: ServiceBroker[] = [];
let folder: string;
let databases: { invoices: TestDatabase; printer: TestDatabase };
let db: Database;
let prints: () => Promise<{ rows: number; used: number }>;

async function node(nodeId: string, ...services: ServiceSchema[]): Promise<ServiceBroker> {
  const config = loadConfig({ NAMESPACE: namespace, NODE_ID: nodeId, LOG_LEVEL: "fatal" });
  const broker = new ServiceBroker({ ...brokerOptions(config), transporter: "Fake" });
  for (const service of services) broker.createService(service);
  await broker.start();
  brokers.push(broker);
  return broker;
}
const printerNode = (nodeId: string) => node(nodeId, printer(databases.printer.url, path.join(folder, "printer")));

/** Writes rows as a service does together with its own data, and wakes the relay. */
async function write(name: string, ids: readonly string[], payload: unknown = { pages: 3 }): Promise<void> {
  await db.query("insert into outbox (subject, event, payload) select id, $2, $3 from unnest($1::uuid[]) as id", [
    ids,
    name,
    JSON.stringify(payload),
  ]);
  (brokers[0]!.getLocalService("invoices") as unknown as Invoices).relay();
}
const statesOf = async (ids: readonly string[]): Promise<string[]> =>
  (await db.query<{ state: string }>("select state from outbox where subject = any($1) order by subject, event", [ids])).map(
    ({ state }) => state,
  );
const attemptsOf = async (id: string, name: string): Promise<number | undefined> =>
  (await db.query<{ attempts: number }>("select attempts from outbox where subject = $1 and event = $2", [id, name]))[0]?.attempts;

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "outbox-pair-"));
  await cp(path.join(ROOT, "services/orders/migrations/002_outbox.sql"), path.join(folder, "invoices/001_outbox.sql"));
  await cp(path.join(ROOT, "services/orders/migrations/002_outbox.sql"), path.join(folder, "printer/001_outbox.sql"));
  await writeFile(
    path.join(folder, "printer/002_prints.sql"),
    "create table prints (id uuid primary key, sheets integer not null); create table paper (used integer not null); insert into paper values (0);",
  );
  databases = { invoices: await createDatabase("invoices"), printer: await createDatabase("printer") };
  const broker = await node("sender", invoices(databases.invoices.url, path.join(folder, "invoices")));
  db = (broker.getLocalService("invoices") as unknown as Invoices).db;
});
afterAll(async () => {
  await Promise.all(brokers.map((broker) => broker.stop()));
  await Promise.all(Object.values(databases).map((database) => database.drop()));
  await rm(folder, { recursive: true });
});

describe("two services joined by an outbox and a replier", () => {
  it("while only another service listens, nothing is published; once the replier is there, every message is settled", async () => {
    await node("mailer", mailer);
    await until("the sender knows the mailer", () => brokers[0]!.registry.events.getAllEndpoints(issued.name).length === 1);
    const early = [testId(1), testId(2)];
    await write(issued.name, early);
    await write(archived.name, [testId(1)]); // its replier never comes
    const broker = await printerNode("printer-1");
    const { db: paper } = broker.getLocalService("printer") as unknown as WithDatabase;
    prints = async () =>
      (await paper.query<{ rows: number; used: number }>("select (select count(*)::int from prints) as rows, used from paper"))[0]!;
    await until("both are settled", async () => (await statesOf(early)).filter((state) => state === "SETTLED").length === 2);
    expect(await attemptsOf(testId(2), issued.name)).toBe(1);
    expect(await attemptsOf(testId(1), archived.name)).toBe(0);
    expect(await prints()).toEqual({ rows: 2, used: 2 });
  });

  it("the absence of another event's replier, and further listeners, change nothing", async () => {
    await write(issued.name, [testId(3)]);
    await until("it is settled", async () => (await statesOf([testId(3)]))[0] === "SETTLED");
    expect(await attemptsOf(testId(1), archived.name)).toBe(0);
  });

  it("a message that arrives again is not processed again, and is settled by the stored outcome", async () => {
    const before = await prints();
    await db.query("update outbox set state = 'PENDING', next_attempt_at = now(), settled_at = null where subject = $1 and event = $2", [
      testId(2),
      issued.name,
    ]);
    (brokers[0]!.getLocalService("invoices") as unknown as Invoices).relay();
    await until("it is settled again", async () => (await statesOf([testId(2)]))[0] === "SETTLED");
    expect(await attemptsOf(testId(2), issued.name)).toBe(2);
    expect(await prints()).toEqual(before);
  });

  it("a message that breaks its contract is parked, and those beside it are settled", async () => {
    await write(issued.name, [testId(5)], { pages: 0 });
    await write(issued.name, [testId(6)]);
    await until("neither is pending", async () => !(await statesOf([testId(5), testId(6)])).includes("PENDING"));
    expect(await statesOf([testId(5), testId(6)])).toEqual(["PARKED", "SETTLED"]);
  });

  it("while the replier is gone its messages wait although another service listens; its return publishes them at once", async () => {
    await brokers.pop()!.stop();
    const { registry } = brokers[0]!;
    await until("only the mailer is left", () => registry.events.getAllEndpoints(issued.name).length === 1);
    await write(issued.name, [testId(7)]);
    await printerNode("printer-2");
    await until("it is settled", async () => (await statesOf([testId(7)]))[0] === "SETTLED");
    expect(await attemptsOf(testId(7), issued.name)).toBe(1);
  });
});
