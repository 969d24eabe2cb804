import { Client, type QueryResultRow } from "pg";

/** Runs one statement on a connection of its own. @returns its rows */
export async function sql<Row extends QueryResultRow>(url: string, text: string, values?: unknown[]): Promise<Row[]> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 5_000, statement_timeout: 30_000 });
  client.on("error", () => undefined); // the statement fails as well
  await client.connect();
  try {
    return (await client.query<Row>(text, values)).rows;
  } finally {
    await client.end();
  }
}
