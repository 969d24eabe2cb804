import * as products from "../../../contracts/products";
import { HOT_READ } from "../hot-read";
import { bodyParams, idOr, IF_UNCHANGED, IF_UNEDITED, pathId, queryParams } from "../routing/input";
import { created, entity, list, nextLink, noContent, ok, showProduct } from "../routing/responses";
import { route, type Routes } from "../routing/route";

export const PRODUCT_ROUTES: Routes = {
  "POST /products": route({
    action: products.create,
    takesIdempotencyKey: true,
    summary: "Puts a product on sale; the caller becomes its seller",
    statuses: [201],
    errors: [],
    auth: "user",
    body: { example: { name: "Desk lamp", price: 49.9, quantity: 50, category: "lamps" } },
    params: bodyParams,
    respond: (product) => created(`/products/${product.id}`, entity(product).body, entity(product).headers),
  }),
  "GET /products": route({
    action: products.list,
    summary: "The catalogue, page by page",
    statuses: [200],
    errors: [],
    auth: "public",
    params: (input) => queryParams(input, products.list),
    perform: (batched, params, requester) => batched.products(params, requester),
    respond: (page, input) => list("/products", page, input),
  }),
  ...HOT_READ,
  "PATCH /products/:id": route({
    action: products.update,
    summary: "Changes a product, for its seller and for admins",
    statuses: [200],
    errors: ["FORBIDDEN"],
    auth: "user",
    supplied: { id: idOr("PRODUCT_NOT_FOUND"), tags: IF_UNEDITED },
    body: { example: { price: 44.9, description: "With a dimmer" } },
    params: bodyParams,
    respond: showProduct,
  }),
  "DELETE /products/:id": route({
    action: products.archive,
    summary: "Takes a product off sale, for its seller and for admins; existing orders keep it",
    statuses: [204],
    errors: ["FORBIDDEN"],
    auth: "user",
    supplied: { id: idOr("PRODUCT_NOT_FOUND"), tags: IF_UNEDITED },
    respond: noContent,
  }),
  "POST /products/:id/stock": route({
    action: products.adjust,
    takesIdempotencyKey: true,
    summary: "Adds units to the stock or removes them, for the seller and for admins",
    statuses: [200],
    errors: ["FORBIDDEN", "INSUFFICIENT_STOCK"],
    auth: "user",
    supplied: { id: idOr("PRODUCT_NOT_FOUND"), tags: IF_UNCHANGED },
    body: { example: { delta: 10, reason: "delivery" } },
    params: bodyParams,
    respond: showProduct,
  }),
  "GET /products/:id/stock": route({
    action: products.ledger,
    lane: "lists",
    summary: "The stock's ledger, newest movement first, for the seller and for admins",
    statuses: [200],
    errors: ["FORBIDDEN"],
    auth: "user",
    supplied: { id: idOr("PRODUCT_NOT_FOUND") },
    params: (input, supplied) => queryParams(input, products.ledger, supplied),
    respond: (page, input) => ok(page, nextLink(`/products/${pathId(input, "PRODUCT_NOT_FOUND")}/stock`, input, page.next_cursor)),
  }),
};
