import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { call } from "../../../broker/contract";
import { check } from "../../../broker/validator";
import { create, list, type Product } from "../../../contracts/products";
import { me, token } from "../../../contracts/users";
import { demoProduct, MARK } from "../../../scripts/catalogue";
import { fillCatalogue } from "../../../scripts/fill";
import { until } from "../../../testkit/until";
import { testId } from "../../../testkit/ids";
import { ROOT } from "../../../testkit/repository";
import { startShop, uniqueNamespace, type Shop } from "../../../testkit/shop";

let shop: Shop;
beforeEach(async () => (shop = await startShop({ nodes: [["products"], ["users"]] })));
afterEach(() => shop.stop());

/** The printed output, and the products on sale afterwards. */
async function fill(products: number, password?: string): Promise<{ said: string[]; items: Product[] }> {
  const said: string[] = [];
  await fillCatalogue(shop.node("users"), { products, password, log: (line) => void said.push(line) });
  return { said, items: await onSale() };
}
const onSale = async (): Promise<Product[]> => (await call(shop.node("products"), list, { limit: 100 })).items;

describe("the demo catalogue", () => {
  it("is the same every time, without duplicates, and keeps the contract up to its maximum size", () => {
    const all = Array.from({ length: 20_000 }, (_, n) => demoProduct(n));
    expect(all.filter((product) => check(create.params, product).length > 0)).toEqual([]);
    for (const key of ["name", "sku"] as const) expect(new Set(all.map((product) => product[key])).size).toBe(all.length);
    expect(new Set(all.slice(0, 30).map(({ category }) => category)).size).toBe(6);
    expect(demoProduct(0)).toEqual({ name: "Desk lamp", category: "lighting", price: 49.9, quantity: 5, sku: "DEMO-000001", description: `${MARK}: desk lamp.` }); // prettier-ignore
    expect(check(create.params, demoProduct(999_999))).toEqual([]);
  });

  it("is put on sale by a new seller, whose password is printed once; filled again, nothing is added", async () => {
    const { said, items } = await fill(30);
    expect(items.map(({ sku }) => sku).sort()).toEqual(Array.from({ length: 30 }, (_, n) => demoProduct(n).sku));
    const [, email = "", password = ""] = /^The demo seller is (\S+), with the password (\S+)$/.exec(said[0] ?? "") ?? [];
    expect(await call(shop.node("users"), token, { email, password })).toMatchObject({ token_type: "bearer" });
    const seller = items[0]?.seller_id ?? "";
    expect(new Set(items.map(({ seller_id }) => seller_id))).toEqual(new Set([seller]));
    expect(await call(shop.node("users"), me, {}, { meta: { user: { id: seller } } })).toMatchObject({ email, role: "user" });
    expect(said[1]).toBe(`30 products were added for the demo seller (user ${seller}); 0 existed already.`);
    expect(await fill(30)).toEqual({ said: ["Nothing to add: 30 demo products exist already."], items });
  });

  it("continues where it was interrupted, for the same seller, and leaves the products of others alone", async () => {
    const somebody = { meta: { user: { id: testId(77) } } };
    await call(shop.node("products"), create, { name: "Mine", price: 1, quantity: 1, description: MARK }, somebody);
    const { said, items } = await fill(7, "a password of mine");
    expect(said[0]).toMatch(/^The demo seller is demo-[0-9a-f]{8}@example\.com$/);
    expect(items).toHaveLength(8);
    const more = await fill(40);
    expect(more.said).toEqual([
      expect.stringMatching(/^33 products were added for the demo seller \(user [0-9a-f-]{36}\); 7 existed already\.$/),
    ]);
    expect(new Set(more.items.map(({ seller_id }) => seller_id)).size).toBe(2);
    expect(more.items).toHaveLength(41);
  });

  it("reports its progress if it is large, and recognises all of it again", async () => {
    const { said } = await fill(2_100);
    expect(said.slice(1, -1)).toEqual(["1008 of 2100 …", "2000 of 2100 …"]);
    expect((await fill(2_100)).said).toEqual(["Nothing to add: 2100 demo products exist already."]);
  });
});

describe("npm run seed", () => {
  const run = (...args: string[]) =>
    promisify(execFile)(process.execPath, ["--import", "tsx", "scripts/seed.ts", ...args], {
      timeout: 30_000,
      cwd: ROOT,
      env: {
        PATH: process.env.PATH,
        NAMESPACE: uniqueNamespace(),
        BCRYPT_COST: "4",
        USERS_DATABASE_URL: shop.databases.users.url,
        PRODUCTS_DATABASE_URL: shop.databases.products.url,
      },
    });

  it("fills the configured databases and exits with code 0", async () => {
    const { stdout, stderr } = await run("--products", "12");
    expect(stderr).toBe("");
    expect(stdout).toMatch(/^The demo seller is \S+, with the password \S+\n12 products were added .*\n$/);
    expect(await onSale()).toHaveLength(12);
    expect((await run("--products", "12")).stdout).toBe("Nothing to add: 12 demo products exist already.\n");
  });

  it("that is interrupted exits at once, with code 0, and continues the next time", async () => {
    const running = run("--products", "500000");
    await until("some are on sale", async () => (await onSale()).length > 0);
    running.child.kill("SIGINT");
    const { stdout, stderr } = await running;
    expect(stderr).not.toMatch(/ERROR|failed/); // it may log that it waits for requests in flight
    expect(stdout).not.toContain("are put on sale");
    expect((await run("--products", "1")).stdout).toMatch(/^Nothing to add/);
  });

  it.each([
    [["--products", "0"], /--products is "0": set a whole number from 1 to 1000000/],
    [["--products", "many"], /--products is "many"/],
    [["--password", "short"], /--password must have at least 8 characters/],
    [["--product", "3"], /Unknown option '--product'/],
  ])("%j is refused with exit code 1 before anything is started", async (args, reason) => {
    await expect(run(...args)).rejects.toMatchObject({ code: 1, stdout: "", stderr: expect.stringMatching(reason) });
    expect(await onSale()).toEqual([]);
  });
});
