import { call } from "../../broker/contract";
import { register } from "../../contracts/users";
import type { Client } from "../../testkit/client";
import { startShop, type Shop } from "../../testkit/shop";

let shop: Shop;
let seller: Client;

beforeAll(async () => {
  shop = await startShop();
  seller = shop.client();
  await seller.signUp();
});
afterAll(() => shop.stop());

const lamp = { name: "Lamp", price: 1, quantity: 1 };

describe("text", () => {
  it("is stored as NFC without surrounding white space, and found in either form", async () => {
    const { status, body } = await seller.post("/products", { ...lamp, name: " Cafe\u0301 lamp\u00a0", category: "Cafe\u0301" });
    expect([status, body["name"], body["category"]]).toEqual([201, "Caf\u00e9 lamp", "Caf\u00e9"]);
    for (const category of ["Caf\u00e9", "Cafe\u0301", " Caf\u00e9 "]) {
      const found = await seller.get(`/products?category=${encodeURIComponent(category)}`);
      expect(found.body["items"]).toEqual([expect.objectContaining({ id: body["id"] })]);
    }
  });

  it("is stored without invisible characters and those that change its direction, and found with and without them", async () => {
    const { status, body } = await seller.post("/products", { ...lamp, name: "\u202egn\u200bp\u2069 👩\u200d🚀", category: "lamps\u200b" });
    expect([status, body["name"], body["category"]]).toEqual([201, "gnp 👩\u200d🚀", "lamps"]);
    for (const category of ["lamps", "la\u00admps\ufeff", "\u2800lamps\u200d"]) {
      const found = await seller.get(`/products?category=${encodeURIComponent(category)}`);
      expect(found.body["items"]).toEqual([expect.objectContaining({ id: body["id"] })]);
    }
  });

  it.each(["name", "sku", "category"])("of white space or invisible characters alone is no %s", async (field) => {
    for (const blank of ["   ", "\u00a0", "\r\n", "\u200b", "\u3164 \u202e", "\u2800", "\u200d", "\ufe0f"]) {
      const { status, body } = await seller.post("/products", { ...lamp, [field]: blank });
      expect([status, body["code"]]).toEqual([422, "VALIDATION_ERROR"]);
    }
  });

  it("has at most 30 combining marks in a row", async () => {
    const marked = (count: number): string => `a${"\u0323\u0301".repeat(count / 2)}`;
    const named = (name: string) => seller.post("/products", { ...lamp, name });
    expect((await named(marked(30).repeat(5))).status).toBe(201);
    const { status, body } = await named(marked(32));
    expect([status, body["errors"]]).toEqual([
      422,
      [{ field: "name", message: expect.stringContaining("more than 30 combining marks in a row") as string }],
    ]);
    const account = (email: string, password: string) => shop.client().post("/register", { email, password });
    expect((await account(`${marked(32)}@shop.test`, "correct horse battery")).status).toBe(422);
    expect((await account("marks@shop.test", marked(32))).status).toBe(422);
    expect((await seller.get(`/products?q=${encodeURIComponent(marked(32))}`)).status).toBe(400);
  });

  it("of a ledger entry is NFC, too", async () => {
    const id = await seller.createProduct();
    const reason = (text: string) => seller.post(`/products/${id}/stock`, { delta: 1, reason: text });
    expect((await reason("re\u0301ception")).status).toBe(200);
    expect((await seller.get(`/products/${id}/stock`)).body["items"][0]).toMatchObject({ reason: "r\u00e9ception" });
  });
});

describe("an account", () => {
  it("can be logged into with its password in either form, and with blanks around its e-mail address, at no failure", async () => {
    const email = "cafe\u0301@shop.test";
    expect((await shop.client().post("/register", { email: ` ${email} `, password: "cr\u00e8me bru\u0302le\u0301e" })).status).toBe(201);
    for (const password of ["cr\u00e8me br\u00fbl\u00e9e", "cre\u0300me bru\u0302le\u0301e"])
      for (const address of [email, ` ${email.normalize("NFC")}\t`]) {
        const { status } = await shop.client().post("/token", { email: address, password });
        expect([address, status]).toEqual([address, 200]);
      }
    const { status } = await shop.client().post("/token", { email, password: " cr\u00e8me br\u00fbl\u00e9e" });
    expect(status).toBe(401); // blanks of a password are part of it
  });

  it("that the console registered can be logged into with its password in either form", async () => {
    const [email, decomposed] = ["console@shop.test", "cre\u0300me bru\u0302le\u0301e"];
    await call(shop.node("users"), register, { email, password: decomposed });
    for (const password of [decomposed, decomposed.normalize("NFC")])
      expect((await shop.client().post("/token", { email, password })).status).toBe(200);
  });

  it.each([
    ["a combining grapheme joiner", "ad\u034fmin@shop.test"],
    ["a Hangul filler", "ad\u3164min@shop.test"],
    ["a soft hyphen in its domain", "admin@sh\u00adop.test"],
    ["a variation selector", "admin\ufe0f@shop.test"],
  ])("is not opened for an e-mail address with %s, which is invisible", async (_what, email) => {
    const { status, body } = await shop.client().post("/register", { email, password: "correct horse battery" });
    expect([status, body["code"]]).toEqual([422, "VALIDATION_ERROR"]);
  });
});
