import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { problem } from "../../../broker/errors";
import { docs, DOCS_FILES, docsFile, openapi as document, type DocsFile } from "../../../contracts/api";
import manifest from "../../../package.json";
import { isNotModified, type Input } from "../routing/input";
import { DOCS_STYLE, docsScript } from "./docs-assets";
import { openapi } from "./document";
import { TAKES_NOTHING, type HttpResponse, type Routes } from "../routing/route";

const pageHtml = (basePath: string): string => `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>${manifest.name}</title>
    <link rel="icon" type="image/png" href="${basePath}/docs/favicon-32x32.png">
    <link rel="stylesheet" href="${basePath}/docs/swagger-ui.css">
    <link rel="stylesheet" href="${basePath}/docs/docs.css">
    <script src="${basePath}/docs/start.js"></script>
    <script src="${basePath}/docs/swagger-ui-bundle.js" defer></script>
  </head>
  <body><div id="swagger-ui"></div></body>
</html>
`;

/** Allows only what this gateway serves, and no inline script or style. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "frame-ancestors 'none'",
  "base-uri 'none'",
  "form-action 'none'",
].join("; ");

/** Content that does not change while the gateway runs. Clients cache it and revalidate it with each request. */
interface Asset {
  bytes: Buffer;
  tag: string;
}

function asset(content: string | Buffer): Asset {
  const bytes = Buffer.from(content); // encoded once, not for each response
  return { bytes, tag: createHash("sha256").update(bytes).digest("base64url") };
}

function showAsset(input: Input, { bytes, tag }: Asset, headers: Readonly<Record<string, string>> = {}): HttpResponse {
  const etag = `"${tag}"`;
  const all = { "Cache-Control": "public, no-cache", ETag: etag, ...headers };
  return isNotModified(input, etag) ? { status: 304, headers: all } : { status: 200, text: bytes, headers: all };
}

const CACHED = [200, 304];

/** Routes for the OpenAPI document and Swagger UI. The document covers the given routes and these. */
export function docsRoutes(shop: Routes, basePath: string): Routes {
  const page = asset(pageHtml(basePath));
  const files = new Map<DocsFile, Promise<Asset>>([
    ["start.js", Promise.resolve(asset(docsScript(basePath)))],
    ["docs.css", Promise.resolve(asset(DOCS_STYLE))],
  ]);
  /** Reads a file on first request, since most gateways never get one; once, however many requests arrive at the same moment. */
  const assetOf = (file: DocsFile): Promise<Asset> => {
    const known = files.get(file);
    if (known !== undefined) return known;
    const reading = readFile(require.resolve(`swagger-ui-dist/${file}`)).then(asset);
    files.set(file, reading);
    reading.catch(() => files.delete(file)); // the request reports the error, and the next one tries again
    return reading;
  };
  const routes: Routes = {
    "GET /openapi.json": {
      ...TAKES_NOTHING,
      auth: "public",
      contract: document,
      summary: "This document",
      statuses: CACHED,
      read: (input) => () => Promise.resolve(showAsset(input, description)),
    },
    "GET /docs": {
      ...TAKES_NOTHING,
      auth: "public",
      contract: docs,
      summary: "Swagger UI, for reading this document and trying requests",
      statuses: CACHED,
      media: ["text/html"],
      read: (input) => () =>
        Promise.resolve(
          showAsset(input, page, {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": POLICY,
            "Referrer-Policy": "no-referrer",
          }),
        ),
    },
    "GET /docs/:file": {
      ...TAKES_NOTHING,
      auth: "public",
      contract: docsFile,
      summary: "A file of the Swagger UI page",
      statuses: CACHED,
      errors: ["NOT_FOUND"],
      media: [...new Set(Object.values(DOCS_FILES))],
      read: (input) => async () => {
        const file = input.path["file"] ?? "";
        if (!isFile(file)) throw problem("NOT_FOUND", "no resource has this path");
        return showAsset(input, await assetOf(file), { "Content-Type": DOCS_FILES[file] });
      },
    },
  };
  const description = asset(JSON.stringify(openapi({ ...shop, ...routes }, manifest, basePath)));
  return routes;
}

const isFile = (name: string): name is DocsFile => Object.hasOwn(DOCS_FILES, name);
