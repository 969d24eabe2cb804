import { dependents } from "../../../scripts/reload";

const loaded = (filename: string, ...imports: string[]) => ({ filename, children: imports.map((name) => ({ filename: name })) });

/** In the order in which they were loaded; `shared` and `circle` import each other. */
const LOADED = [
  loaded("users.service", "logins", "shared"),
  loaded("logins", "contract", "lodash"),
  loaded("contract"),
  loaded("shared", "circle"),
  loaded("circle", "shared"),
  loaded("orders.service", "shared"),
];

it.each([
  [["contract"], ["contract", "logins", "users.service"]],
  [["circle"], ["circle", "orders.service", "shared", "users.service"]],
  [["orders.service"], ["orders.service"]],
  [["not loaded"], ["not loaded"]],
  [[], []],
  [
    ["contract", "circle"],
    ["circle", "contract", "logins", "orders.service", "shared", "users.service"],
  ],
])("after a change of %j, %j are loaded again", (changed, stale) => {
  expect([...dependents(changed, LOADED)].sort()).toEqual(stale);
});
