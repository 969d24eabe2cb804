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
import { countAttempt, forgetAttempts, type Attempt } from "./attempts.store";
import { KeyRing } from "./keys.store";
import * as sessions from "./sessions.store";
import { issueToken, publicJwk, type SigningKey } from "./tokens";
import { emailKey, ensureAdmin, present, type UserRow } from "./users.store";

type Users = Service &
  WithDatabase & {
    passwords: Passwords;
    keys: KeyRing;
    findUser(where: { email_key: string } | { id: number }): Promise<UserRow | undefined>;
    checkPassword(user: UserRow | undefined, password: string, attempt: Attempt): Promise<UserRow>;
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
        const { email, password, address } = ctx.params;
        const account = emailKey(email);
        const user = await this.checkPassword(await this.findUser({ email_key: account }), password, { account, address });
        const key = await this.keys.signing();
        const opened = await sessions.openSession(this.db, user, config.refreshTokenTtl);
        if (opened === undefined) throw wrongCredentials();
        return tokens(key, opened, config.accessTokenTtl);
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
        const { id, session } = callerOf(ctx);
        const { current_password, new_password } = ctx.params;
        const found = await this.findUser({ id });
        if (found === undefined) throw noAccount();
        const user = await this.checkPassword(found, current_password, { account: emailKey(found.email), address: undefined });
        const changed = await sessions.changePassword(this.db, user, await this.passwords.hash(new_password), session);
        if (!changed) throw wrongCredentials();
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

      /** @throws INVALID_CREDENTIALS, no sooner for nobody than for a wrong password; TOO_MANY_REQUESTS after too many of these */
      async checkPassword(this: Users, user: UserRow | undefined, password: string, attempt: Attempt): Promise<UserRow> {
        const takeBack = await countAttempt(this.db, attempt, config.rateLimit);
        const right = await this.passwords.compare(password, user?.password_hash).catch(async (error: unknown) => {
          await takeBack(); // it was not looked at
          throw error;
        });
        if (!right || user === undefined) throw wrongCredentials();
        await takeBack();
        return user;
      },

      /** Forgets sessions and failed logins that are over. */
      async tidy(this: Users): Promise<void> {
        for (const forget of [() => forgetAttempts(this.db), () => sessions.forgetSessions(this.db, config.refreshTokenTtl)])
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
      this.keys = new KeyRing(this.db, config.accessTokenTtl);
      await this.keys.current();
      this.tidying = setInterval(() => void this.tidy(), TIDY_INTERVAL).unref();
      if (config.admin === undefined) return;
      const made = await ensureAdmin(this.db, config.admin.email, await this.passwords.hash(config.admin.password));
      if (made) this.logger.info("the first admin was created");
    },

    async stopped(this: Users) {
      clearInterval(this.tidying);
      await this.passwords.close();
    },
  };
}

const wrongCredentials = () => problem("INVALID_CREDENTIALS", "the e-mail or the password is wrong");
const noAccount = () => problem("UNAUTHENTICATED", "this account does not exist");

const tokens = (key: SigningKey, { caller, refreshToken }: sessions.Grant, ttl: number): contract.Tokens => ({
  access_token: issueToken(key, caller, ttl),
  token_type: "bearer",
  expires_in: ttl,
  refresh_token: refreshToken,
});
