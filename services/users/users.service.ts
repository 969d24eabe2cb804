import path from "node:path";
import type { Service, ServiceBroker } from "moleculer";
import { DataTypes } from "sequelize";
import { adminOf, callerOf, implement, type SchemaFor } from "../../broker/contract";
import { problem } from "../../broker/errors";
import { isCallerThere } from "../../broker/listeners";
import { ConfigError, loadConfig, type Config } from "../../config";
import * as contract from "../../contracts/users";
import { databaseMixin, type WithDatabase } from "../../mixins/database.mixin";
import { forgetAttempts } from "./attempts.store";
import { KeyCipher, KeyEncryptionError } from "./key-cipher";
import { KeyRing } from "./keys.store";
import { forgetAddresses } from "./known-addresses.store";
import { Logins, noAccount } from "./logins";
import { OWN_TURN, Passwords } from "./passwords";
import * as sessions from "./sessions.store";
import { issueToken, publicJwk, type SigningKey } from "./tokens";
import { ensureAdmin, present, type UserRow } from "./users.store";

type Users = Service &
  WithDatabase & {
    passwords: Passwords;
    logins: Logins;
    keys: KeyRing;
    findUser(where: { email_key: string } | { id: number }): Promise<UserRow | undefined>;
    insertUser(account: { email: string; email_key: string; password_hash: string }): Promise<UserRow>;
    encryptKeys(): Promise<void>;
    tidy(): Promise<void>;
    tidying: NodeJS.Timeout | undefined;
  };

/** How often what is over is forgotten, in ms. Nodes may do it at the same moment. */
const TIDY_INTERVAL = 3_600_000;

const MODEL = {
  name: "users",
  define: {
    id: { type: DataTypes.BIGINT, primaryKey: true, autoIncrement: true },
    email: DataTypes.TEXT,
    email_key: DataTypes.TEXT,
    password_hash: DataTypes.TEXT,
    role: { type: DataTypes.TEXT, defaultValue: "user" },
    created_at: DataTypes.DATE,
  },
};

/** The people, and the sole issuer of tokens. */
export default function users(_broker: ServiceBroker, config: Config = loadConfig()): SchemaFor<Users> {
  return {
    name: "users",
    mixins: [
      databaseMixin({
        service: "users",
        url: config.databases.users,
        migrations: path.join(__dirname, "migrations"),
        model: MODEL,
      }),
    ],

    actions: {
      register: implement(contract.register, async function (this: Users, ctx) {
        const { address, ...credentials } = ctx.params;
        return present(await this.logins.register(credentials, { address, isWanted: () => isCallerThere(ctx) }));
      }),

      token: implement(contract.token, async function (this: Users, ctx) {
        const { address, ...credentials } = ctx.params;
        const key = await this.keys.signing();
        return tokens(key, await this.logins.logIn(credentials, { address, isWanted: () => isCallerThere(ctx) }), config.accessTokenTtl);
      }),

      refresh: implement(contract.refresh, async function (this: Users, ctx) {
        const key = await this.keys.signing(); // before the token is spent
        const renewed = await sessions.renewSession(this.db, ctx.params.refresh_token, config.refreshTokenTtl);
        if (renewed === undefined) throw problem("INVALID_REFRESH_TOKEN", "this refresh token is not good, or not any more: log in again");
        return tokens(key, renewed, config.accessTokenTtl);
      }),

      logout: implement(contract.logout, async function (this: Users, ctx) {
        await sessions.endSession(this.db, ctx.params.refresh_token);
        return {};
      }),

      changePassword: implement(contract.changePassword, async function (this: Users, ctx) {
        const { current_password: current, new_password: next, address } = ctx.params;
        await this.logins.changePassword(callerOf(ctx), { current, next }, { address, isWanted: () => isCallerThere(ctx) });
        return {};
      }),

      me: implement(contract.me, async function (this: Users, ctx) {
        const user = await this.findUser({ id: callerOf(ctx).id });
        if (user === undefined) throw noAccount();
        return present(user);
      }),

      jwks: implement(contract.jwks, async function (this: Users) {
        return { keys: (await this.keys.current()).told.map(publicJwk) };
      }),

      revocations: implement(contract.revocations, async function (this: Users, ctx) {
        const [{ told }, ended] = await Promise.all([
          this.keys.current(),
          sessions.endedSessions(this.db, ctx.params, config.accessTokenTtl),
        ]);
        return { ...ended, kids: told.map(({ kid }) => kid) };
      }),

      rotateKeys: implement(contract.rotateKeys, async function (this: Users, ctx) {
        adminOf(ctx);
        const kid = await this.keys.rotate(ctx.params.at_once ?? false);
        this.logger.warn(`a new signing key was made: ${kid}`);
        return { kid };
      }),
    },

    methods: {
      async findUser(this: Users, where: { email_key: string } | { id: number }): Promise<UserRow | undefined> {
        const user = await this.adapter.findOne({ where, raw: true });
        return (user ?? undefined) as UserRow | undefined; // a raw row of the columns in MODEL
      },

      async insertUser(this: Users, account: { email: string; email_key: string; password_hash: string }): Promise<UserRow> {
        return (await this.adapter.insert(account)).get({ plain: true }) as UserRow; // the model's columns
      },

      /** @throws ConfigError where the configured key is not the one that the signing keys are encrypted with */
      async encryptKeys(this: Users): Promise<void> {
        const count = await this.keys.reencrypt().catch((error: unknown) => {
          throw error instanceof KeyEncryptionError ? new ConfigError([error.message]) : error;
        });
        if (count > 0) this.logger.info(`${count} signing keys were encrypted with KEY_ENCRYPTION_KEY`);
      },

      /** Forgets sessions and failed logins that are over, and addresses that were not used for long. */
      async tidy(this: Users): Promise<void> {
        const all = [
          () => forgetAttempts(this.db),
          () => forgetAddresses(this.db),
          () => sessions.forgetSessions(this.db, config.refreshTokenTtl),
        ];
        for (const forget of all)
          try {
            while (await forget()) if (this.broker.stopping) return;
          } catch (error) {
            this.logger.warn("what is over was not forgotten; the next try is in an hour:", error);
          }
      },
    },

    created(this: Users) {
      this.passwords = new Passwords(config.bcryptCost);
    },

    async started(this: Users) {
      const accounts = { find: this.findUser.bind(this), insert: this.insertUser.bind(this) };
      this.logins = new Logins(this.db, accounts, this.passwords, config);
      this.keys = new KeyRing(this.db, config.accessTokenTtl, new KeyCipher(config.keyEncryption));
      await this.encryptKeys();
      await this.keys.current();
      this.tidying = setInterval(() => void this.tidy(), TIDY_INTERVAL).unref();
      if (config.admin === undefined) return;
      const made = await ensureAdmin(this.db, config.admin.email, await this.passwords.hash(config.admin.password, OWN_TURN));
      if (made) this.logger.info("the first admin was created");
    },

    async stopped(this: Users) {
      clearInterval(this.tidying);
      await this.passwords.close();
    },
  };
}

const tokens = (key: SigningKey, { caller, refreshToken }: sessions.Grant, ttl: number): contract.Tokens => ({
  access_token: issueToken(key, caller, ttl),
  token_type: "bearer",
  expires_in: ttl,
  refresh_token: refreshToken,
});
