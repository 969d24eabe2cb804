import { problem } from "../../../broker/errors";
import { problemPage } from "../../../contracts/api";
import { ERRORS, isErrorCode, type ErrorCode } from "../../../contracts/errors";
import { refuseQuery } from "../routing/input";
import { TAKES_NOTHING, type Routes } from "../routing/route";

/** The explanations are Markdown, of which they use `code` only, and contain no HTML. */
const page = (code: ErrorCode, basePath: string): string => {
  const { status, title, explanation } = ERRORS[code];
  return `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>${code}</title>
  </head>
  <body>
    <h1>${code}</h1>
    <p>HTTP status ${status} ${title}</p>
    <p>${explanation.replace(/`([^`]*)`/g, "<code>$1</code>")}</p>
    <p><a href="${basePath}/docs">API documentation</a></p>
  </body>
</html>
`;
};

const HEADERS = {
  "Content-Type": "text/html; charset=utf-8",
  "Cache-Control": "public, max-age=86400",
  "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
};

/** The pages that the `type` of each problem leads to (RFC 9457, 3.1.1). */
export const problemRoutes = (basePath: string): Routes => ({
  "GET /problems/:code": {
    ...TAKES_NOTHING,
    auth: "public",
    contract: problemPage,
    summary: "Explains an error code",
    statuses: [200],
    errors: ["NOT_FOUND"],
    media: ["text/html"],
    read: (input) => {
      refuseQuery(input);
      const code = input.path["code"];
      if (!isErrorCode(code)) throw problem("NOT_FOUND", "no problem has this code");
      return () => Promise.resolve({ status: 200, text: page(code, basePath), headers: HEADERS });
    },
  },
});
