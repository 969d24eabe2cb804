import path from "node:path";
import type { Context, Service, ServiceBroker } from "moleculer";
import { DataTypes } from "sequelize";
import { adminOf, callerOf, FAIR, implement, type Admin, type SchemaFor } from "../../broker/contract";
import { problem } from "../../broker/errors";
import { isCallerThere } from "../../broker/listeners";
import { ConfigError, loadConfig, type Config } from "../../config";
import * as accounts from "../../contracts/accounts";
import { parseId } from "../../contracts/contract";
import * as contract from "../../contracts/users";
import { databaseMixin, type WithDatabase } from "../../mixins/database.mixin";
import { cleanupMixin } from "../../mixins/cleanup.mixin";
import type { State } from "./accounts";
import { changeAccount, changedRoles, findAccount, type Changed } from "./accounts.store";
import { deleteExpiredAttempts } from "./attempts.store";
import * as auditLog from "./audit-log.store";
import { KeyCipher, KeyEncryptionError } from "./key-cipher";
import { KeyRing } from "./key-ring";
import { deleteExpiredAddresses } from "./known-addresses.store";
import { Logins, noAccount, type Visitor } from "./logins";
import { OWN_TURN, Passwords } from "./passwords";
import * as sessions from "./sessions.store";
import { issueToken, publicJwk, successorOf, type SigningKey } from "./tokens";
import { ensureAdmin, present, type UserRow } from "./users.store";

type Users = Service &
  WithDatabase & {
    passwords: Passwords;
    logins: Logins;
    keys: KeyRing;
    findUser(where: { email_key: string } | { id: string }): Promise<UserRow | undefined>;
    changeAccount(by: Admin, id: string, change: Partial<State>): Promise<accounts.Account>;
    encryptKeys(): Promise<void>;
  };

const MODEL = {
  name: "users",
  define: {
    id: { type: DataTypes.UUID, primaryKey: true },
    email: DataTypes.TEXT,
    email_key: DataTypes.TEXT,
    password_hash: DataTypes.TEXT,
    role: DataTypes.TEXT,
    created_at: DataTypes.DATE,
    disabled_at: DataTypes.DATE,
  },
};

/** User accounts and sessions; the only issuer of tokens. */
export default function users(_broker: ServiceBroker, config: Config = loadConfig()): SchemaFor<Users> {
  return {
    name: "users",
    // The last mixin starts first and stops last.
    mixins: [
      cleanupMixin(
        deleteExpiredAttempts,
        deleteExpiredAddresses,
        (db) => sessions.deleteExpiredSessions(db, config.refreshTokenTtlSeconds),
        auditLog.deleteExpiredEntries,
      ),
      databaseMixin({
        service: "users",
        url: config.databases.users,
        migrations: path.join(__dirname, "migrations"),
        model: MODEL,
      }),
    ],

    actions: {
      register: implement(
        contract.register,
        async function (this: Users, ctx) {
          return present(await this.logins.register(ctx.params, visitorOf(ctx)));
        },
        FAIR,
      ),

      token: implement(
        contract.token,
        async function (this: Users, ctx) {
          const { signing } = await this.keys.recent();
          return tokens(signing, await this.logins.logIn(ctx.params, visitorOf(ctx)), config.accessTokenTtlSeconds);
        },
        FAIR,
      ),

      refresh: implement(contract.refresh, async function (this: Users, ctx) {
        const { signing, published } = await this.keys.recent(); // before the token is spent
        const { refresh_token, address } = ctx.params;
        const renewed = await sessions.renewSession(this.db, refresh_token, {
          ttlSeconds: config.refreshTokenTtlSeconds,
          graceSeconds: config.refreshGraceSeconds,
          successor: successorOf(refresh_token, signing),
          candidates: published.map((key) => successorOf(refresh_token, key)),
          address,
        });
        if (renewed === undefined)
          throw problem("INVALID_REFRESH_TOKEN", "this refresh token is invalid, expired or already used: log in again");
        return tokens(signing, renewed, config.accessTokenTtlSeconds);
      }),

      logout: implement(contract.logout, async function (this: Users, ctx) {
        await sessions.endSession(this.db, ctx.params.refresh_token, ctx.params.address);
        return {};
      }),

      changePassword: implement(
        contract.changePassword,
        async function (this: Users, ctx) {
          const { current_password: current, new_password: next } = ctx.params;
          await this.logins.changePassword(callerOf(ctx), { current, next }, visitorOf(ctx));
          return {};
        },
        FAIR,
      ),

      me: implement(contract.me, async function (this: Users, ctx) {
        const user = await this.findUser({ id: callerOf(ctx).id });
        if (user?.disabled_at !== null) throw noAccount();
        return present(user);
      }),

      jwks: implement(contract.jwks, async function (this: Users) {
        return { keys: (await this.keys.current()).published.map(publicJwk) };
      }),

      revocations: implement(contract.revocations, async function (this: Users, ctx) {
        const { since, after } = ctx.params;
        const { published, tokenTtlSeconds } = await this.keys.current();
        const [ended, roles] = await Promise.all([
          sessions.endedSessions(this.db, ctx.params, tokenTtlSeconds),
          after === undefined ? changedRoles(this.db, since, tokenTtlSeconds) : [], // with the first page
        ]);
        return { ...ended, kids: published.map(({ kid }) => kid), roles };
      }),

      checkSessions: implement(contract.checkSessions, async function (this: Users, ctx) {
        return sessions.checkSessions(this.db, ctx.params.sessions, this.keys.tokenTtlSeconds);
      }),

      rotateKeys: implement(contract.rotateKeys, async function (this: Users, ctx) {
        const kid = await this.keys.rotate(ctx.params.at_once ?? false, adminOf(ctx));
        this.logger.warn(`a new signing key was created: ${kid}`);
        return { kid };
      }),

      find: implement(accounts.find, async function (this: Users, ctx) {
        adminOf(ctx);
        const account = await findAccount(this.db, ctx.params.email);
        if (account === undefined) throw refused("USER_NOT_FOUND");
        return account;
      }),

      update: implement(accounts.update, async function (this: Users, ctx) {
        const { id, ...changes } = ctx.params;
        return this.changeAccount(adminOf(ctx), id, changes);
      }),

      disable: implement(accounts.disable, async function (this: Users, ctx) {
        return this.changeAccount(adminOf(ctx), ctx.params.id, { disabled: true });
      }),

      enable: implement(accounts.enable, async function (this: Users, ctx) {
        return this.changeAccount(adminOf(ctx), ctx.params.id, { disabled: false });
      }),

      setRole: implement(accounts.setRole, async function (this: Users, ctx) {
        return this.changeAccount(adminOf(ctx), ctx.params.id, { role: ctx.params.role });
      }),

      auditLog: implement(accounts.auditLog, async function (this: Users, ctx) {
        adminOf(ctx);
        const { limit = 20, cursor, subject, ...filter } = ctx.params;
        const named = subject !== undefined && { subject: parseId(subject) ?? subject }; // otherwise a row id or a key id
        return this.lists.read((db) => auditLog.listAudit(db, { ...filter, ...named }, limit, cursor));
      }),

      record: implement(accounts.record, async function (this: Users, ctx) {
        await auditLog.record(this.db.query, adminOf(ctx), ctx.params.action, ctx.params.subject);
        return {};
      }),
    },

    methods: {
      async findUser(this: Users, where: { email_key: string } | { id: string }): Promise<UserRow | undefined> {
        const user = await this.adapter.findOne({ where, raw: true });
        return (user ?? undefined) as UserRow | undefined; // a raw row of the columns in MODEL
      },

      /** @throws USER_NOT_FOUND, LAST_ADMIN, FORBIDDEN */
      async changeAccount(this: Users, by: Admin, id: string, change: Partial<State>): Promise<accounts.Account> {
        const changed = await changeAccount(this.db, by, id, change);
        if (!changed.ok) throw refused(changed.refusal);
        return changed.account;
      },

      /** @throws ConfigError if the configured key does not decrypt the signing keys */
      async encryptKeys(this: Users): Promise<void> {
        const count = await this.keys.reencrypt().catch((error: unknown) => {
          throw error instanceof KeyEncryptionError ? new ConfigError([error.message]) : error;
        });
        if (count > 0) this.logger.info(`${count} signing keys were encrypted with KEY_ENCRYPTION_KEY`);
      },
    },

    created(this: Users) {
      this.passwords = new Passwords(config.bcryptCost);
    },

    async started(this: Users) {
      this.logins = new Logins(this.db, this.findUser.bind(this), this.passwords, config);
      this.keys = new KeyRing(this.db, config.accessTokenTtlSeconds, new KeyCipher(config.keyEncryption));
      await this.encryptKeys();
      await this.keys.current();
      if (config.admin === undefined) return;
      const made = await ensureAdmin(this.db, config.admin.email, await this.passwords.hash(config.admin.password, OWN_TURN));
      if (made) this.logger.info("the first admin was created");
    },

    stopped(this: Users) {
      return this.passwords.close();
    },
  };
}

const visitorOf = (ctx: Context<{ address?: string }, object>): Visitor => ({
  address: ctx.params.address,
  isWanted: () => isCallerThere(ctx),
});

const REFUSALS = {
  USER_NOT_FOUND: "there is no such user",
  LAST_ADMIN: "this is the last enabled admin account",
  FORBIDDEN: "this is for admins",
} satisfies Record<Extract<Changed, { ok: false }>["refusal"], string>;
const refused = (code: keyof typeof REFUSALS) => problem(code, REFUSALS[code]);

const tokens = (key: SigningKey, { caller, refreshToken }: sessions.Grant, ttlSeconds: number): contract.Tokens => ({
  access_token: issueToken(key, caller, ttlSeconds),
  token_type: "bearer",
  expires_in: ttlSeconds,
  refresh_token: refreshToken,
});
