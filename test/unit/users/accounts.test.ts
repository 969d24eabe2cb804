import { change, type State } from "../../../services/users/accounts";

const user = { role: "user", disabled: false } as const;
const admin = { role: "admin", disabled: false } as const;
const disabledAdmin = { role: "admin", disabled: true } as const;

it.each<[string, State, Partial<State>, number, State, string[]]>([
  ["no change requested", user, {}, 0, user, []],
  ["the current state requested", admin, { role: "admin", disabled: false }, 0, admin, []],
  ["a user disabled", user, { disabled: true }, 0, { role: "user", disabled: true }, ["user.disabled"]],
  ["a user promoted", user, { role: "admin" }, 0, admin, ["user.promoted"]],
  ["an admin demoted while there is another", admin, { role: "user" }, 1, user, ["user.demoted"]],
  ["an admin disabled while there is another", admin, { disabled: true }, 1, disabledAdmin, ["user.disabled"]],
  [
    "a disabled admin demoted while there is no other",
    disabledAdmin,
    { role: "user" },
    0,
    { role: "user", disabled: true },
    ["user.demoted"],
  ],
  ["both at once", disabledAdmin, { role: "user", disabled: false }, 0, user, ["user.enabled", "user.demoted"]],
])("%s → the requested state, and its events", (_what, before, target, others, after, events) => {
  expect(change(before, target, others)).toEqual({ ok: true, after, events });
});

it.each<Partial<State>>([{ role: "user" }, { disabled: true }, { role: "user", disabled: true }])(
  "the last enabled admin with %j → refused",
  (target) => {
    expect(change(admin, target, 0)).toEqual({ ok: false, refusal: "LAST_ADMIN" });
  },
);
