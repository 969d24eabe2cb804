import path from "node:path";
import type { Service, ServiceBroker } from "moleculer";
import { DataTypes } from "sequelize";
import { callerOf, implement, type SchemaFor } from "../../broker/contract";
import { problem } from "../../broker/errors";
import { loadConfig, type Config } from "../../config";
import * as contract from "../../contracts/users";
import { databaseMixin, type WithDatabase } from "../../mixins/database.mixin";
import { isUniqueViolation } from "../../mixins/sql-state";
import { Passwords } from "./passwords";
import { issueToken, publicJwk, type SigningKey } from "./tokens";
import { emailKey, ensureAdmin, loadSigningKeys, present, type UserRow } from "./users.store";

type Users = Service &
  WithDatabase & {
    passwords: Passwords;
    keys: SigningKey[];
    findUser(where: { email_key: string } | { id: number }): Promise<UserRow | undefined>;
  };

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
        const { email, password } = ctx.params;
        const password_hash = await this.passwords.hash(password);
        try {
          const user = await this.adapter.insert({ email, email_key: emailKey(email), password_hash });
          return present(user.get({ plain: true }) as UserRow); // the model's columns
        } catch (error) {
          if (isUniqueViolation(error)) throw problem("EMAIL_TAKEN", "this e-mail has an account");
          throw error;
        }
      }),

      token: implement(contract.token, async function (this: Users, ctx) {
        const user = await this.findUser({ email_key: emailKey(ctx.params.email) });
        const right = await this.passwords.compare(ctx.params.password, user?.password_hash);
        const [key] = this.keys;
        if (!right || user === undefined) throw problem("INVALID_CREDENTIALS", "the e-mail or the password is wrong");
        if (key === undefined) throw new Error("there is no signing key");
        return {
          access_token: issueToken(key, user, config.accessTokenTtl),
          token_type: "bearer" as const,
          expires_in: config.accessTokenTtl,
        };
      }),

      me: implement(contract.me, async function (this: Users, ctx) {
        const user = await this.findUser({ id: callerOf(ctx).id });
        if (user === undefined) throw problem("UNAUTHENTICATED", "this account does not exist");
        return present(user);
      }),

      jwks: implement(contract.jwks, function (this: Users) {
        return Promise.resolve({ keys: this.keys.map(publicJwk) });
      }),
    },

    methods: {
      async findUser(this: Users, where: { email_key: string } | { id: number }): Promise<UserRow | undefined> {
        const user = await this.adapter.findOne({ where, raw: true });
        return (user ?? undefined) as UserRow | undefined; // a raw row of the columns in MODEL
      },
    },

    created(this: Users) {
      this.passwords = new Passwords(config.bcryptCost);
    },

    async started(this: Users) {
      this.keys = await loadSigningKeys(this.db);
      if (config.admin === undefined) return;
      const made = await ensureAdmin(this.db, config.admin.email, await this.passwords.hash(config.admin.password));
      if (made) this.logger.info("the first admin was created");
    },

    async stopped(this: Users) {
      await this.passwords.close();
    },
  };
}
