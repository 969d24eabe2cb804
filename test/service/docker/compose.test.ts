import { randomBytes } from "node:crypto";
import { NODE_FLAGS } from "../../../testkit/node-flags";
import { DATABASES, databaseNames, loadConfig, SERVICES } from "../../../config";
import { compose, environmentOf, exampleEnv, imageCommand, networks, nodes } from "./compose-file";
import { textOf } from "../../../testkit/repository";

describe("docker-compose.yml", () => {
  test("has the four services, PostgreSQL and RabbitMQ", () => {
    expect(Object.keys(compose()).sort()).toEqual([...SERVICES, "postgres", "rabbitmq"].sort());
  });

  test("publishes the gateway and nothing else", () => {
    const ports = Object.entries(compose()).flatMap(([name, { ports = [] }]) => ports.map((port) => [name, port]));
    expect(ports).toEqual([["api", "8000:8000"]]);
    expect(loadConfig(environmentOf("api"))).toMatchObject({ port: 8000, host: "0.0.0.0" });
  });

  test("all nodes run one image, and one of them builds it", () => {
    expect(new Set(nodes().map(([, { image }]) => image)).size).toBe(1);
    expect(nodes().flatMap(([, { build }]) => build ?? [])).toEqual(["."]);
    // otherwise compose would look for the image in a registry
    expect(nodes().map(([, { pull_policy }]) => pull_policy)).toEqual(Array(4).fill("never"));
    expect(nodes().flatMap(([, { command }]) => command ?? [])).toEqual([]);
  });

  test("each service has its own database and role, and no access to another's", () => {
    for (const [name] of nodes()) {
      const variables = Object.keys(environmentOf(name)).filter((variable) => variable.endsWith("_DATABASE_URL"));
      expect(variables).toEqual(name === "api" ? [] : [DATABASES[name]]);
    }
    const urls = databaseNames().map(([name, variable]) => new URL(environmentOf(name)[variable]!));
    expect(urls.map(({ pathname }) => pathname)).toEqual(["/user_db", "/product_db", "/order_db"]);
    expect(new Set(urls.map(({ username }) => username)).size).toBe(3);
    expect(urls.map(({ host }) => host)).toEqual(Array(3).fill("postgres:5432"));
    // PostgreSQL creates the databases that the URLs refer to
    const { environment } = compose()["postgres"]!;
    expect(databaseNames().map(([, variable]) => environment[variable])).toEqual(urls.map(({ href }) => href));
  });

  test("each node's configuration is valid, and hosts its one service", () => {
    for (const [name] of nodes()) {
      expect(loadConfig(environmentOf(name))).toMatchObject({
        services: [name],
        transporter: ["amqp://shop:shop-dev@rabbitmq:5672/shop"],
        ops: { port: 9100, host: "0.0.0.0" },
      });
    }
  });

  test("every container reaches only what it needs: the gateway no database, and the others no outside network", () => {
    const of = Object.fromEntries(Object.entries(compose()).map(([name, service]) => [name, service.networks ?? ["default"]]));
    const meet = (a: string, b: string): boolean => of[a]!.some((network) => of[b]!.includes(network));
    for (const name of SERVICES) expect([name, meet(name, "rabbitmq"), meet(name, "postgres")]).toEqual([name, true, name !== "api"]);
    expect(meet("postgres", "rabbitmq")).toBe(false);
    const open = Object.entries(networks()).flatMap(([name, network]) => (network?.internal ? [] : [name]));
    expect(open).toEqual(["public"]);
    expect(Object.entries(of).flatMap(([name, own]) => (own.some((network) => open.includes(network)) ? [name] : []))).toEqual(["api"]);
    for (const own of Object.values(of)) expect(Object.keys(networks())).toEqual(expect.arrayContaining(own));
  });

  test("each container has limits of memory and processes", () => {
    for (const [name, { mem_limit, pids_limit }] of Object.entries(compose()))
      expect([name, mem_limit, pids_limit]).toEqual([name, expect.stringMatching(/^\d+[mg]$/), expect.any(Number)]);
  });

  test("users gets more CPU time than the others on busy cores, so that other load doesn't delay logins", () => {
    const shares = Object.entries(compose()).flatMap(([name, { cpu_shares }]) => (cpu_shares === undefined ? [] : [[name, cpu_shares]]));
    expect(shares).toEqual([["users", 2_048]]); // the default is 1,024
  });

  test("each external image has an exact version", () => {
    const images = Object.values(compose()).flatMap(({ image }) => (image === "moleculer-shop" ? [] : image));
    const bases = [...textOf("Dockerfile").matchAll(/^FROM (\S+)/gm)].map(([, image]) => image!);
    expect([images.length, bases.length]).toEqual([2, 3]);
    for (const image of images) expect(image).toMatch(/^(postgres:\d+\.\d+|rabbitmq:\d+\.\d+\.\d+)$/);
    expect(new Set(bases)).toEqual(new Set([expect.stringMatching(/^node:24\.\d+\.\d+-slim$/)]));
  });

  test("RabbitMQ's user has the virtual host that the nodes connect to, and the names of their namespace", () => {
    const { environment, volumes, image } = compose()["rabbitmq"]!;
    expect(volumes).toEqual(["./docker/rabbitmq.conf:/etc/rabbitmq/conf.d/20-shop.conf:ro,z"]);
    expect(image).not.toContain("management"); // no user could log in there
    const { transporter: [url = ""] = [], namespace } = loadConfig(environmentOf("api"));
    const { username, password, pathname } = new URL(url);
    expect([username, password]).toEqual([environment["RABBITMQ_DEFAULT_USER"], environment["RABBITMQ_DEFAULT_PASS"]]);
    const conf = Object.fromEntries(
      [...textOf("docker/rabbitmq.conf").matchAll(/^([\w.]+) = (.*)$/gm)].map(([, name, value]) => [name, value]),
    );
    expect(`/${conf["default_vhost"]}`).toBe(pathname);
    expect(conf["default_permissions.read"]).toBe(conf["default_permissions.write"]); // RabbitMQ treats the two alike
    for (const right of ["configure", "read", "write"]) {
      const pattern = new RegExp(String(conf[`default_permissions.${right}`]));
      expect(pattern.test(`MOL-${namespace}.REQB.orders.create`)).toBe(true);
      for (const other of ["", "other", `MOL-${namespace}`, `MOL-${namespace}2.REQ.x`, `x.MOL-${namespace}.REQ.x`, "amq.topic"])
        expect([right, other, pattern.test(other)]).toEqual([right, other, false]);
    }
  });

  test("a service can have any number of nodes: no name or port of a node is fixed", () => {
    for (const service of Object.values(compose())) expect(service.container_name).toBeUndefined();
    for (const [name] of nodes()) {
      const ids = [1, 2].map(() => loadConfig(environmentOf(name)).nodeId);
      expect(ids[0]).not.toBe(ids[1]);
    }
  });

  test("nodes start once PostgreSQL and RabbitMQ are healthy, restart, and have time to finish", () => {
    for (const [name, { depends_on, restart, stop_grace_period = "" }] of nodes()) {
      const needs = name === "api" ? ["rabbitmq"] : ["postgres", "rabbitmq"];
      expect(depends_on).toEqual(Object.fromEntries(needs.map((need) => [need, { condition: "service_healthy" }])));
      expect(restart).toBe("unless-stopped");
      expect(/^\d+s$/.test(stop_grace_period) && parseInt(stop_grace_period) >= 30).toBe(true);
    }
  });

  test("each container has a health check", () => {
    const { postgres, rabbitmq } = compose();
    // by TCP: during initialisation the server listens only on its socket
    expect(postgres!.healthcheck!.test).toEqual(expect.arrayContaining(["pg_isready", "--host=127.0.0.1"]));
    expect(rabbitmq!.healthcheck!.test).toContain("rabbitmq-diagnostics");
    expect(imageCommand("HEALTHCHECK").join(" ")).toMatch(/OPS_PORT.*\/ready/);
  });

  test("PostgreSQL 18 has its volume at its data directory, and the script that creates the databases", () => {
    const { image, volumes } = compose()["postgres"]!;
    expect(image).toMatch(/^postgres:18\./);
    expect(volumes).toEqual(["postgres-data:/var/lib/postgresql", "./docker/postgres-init.sql:/docker-entrypoint-initdb.d/shop.sql:ro,z"]);
  });

  test("its nodes have the same Node.js limits as npm start", () => {
    const flags = /^CMD (.*)$/m.exec(textOf("Dockerfile"))?.[1]?.match(/--max[^"]+/g);
    expect(flags).toEqual(["--max-old-space-size=256", "--max-semi-space-size=32"]);
    expect(NODE_FLAGS).toEqual(flags);
  });

  test(".env.example names every variable, with its default value", () => {
    const asked = [...textOf("docker-compose.yml").matchAll(/\$\{(\w+)/g)].map(([, name]) => name);
    expect(Object.keys(exampleEnv()).sort()).toEqual([...new Set(asked)].sort());
    const own = Object.fromEntries(
      Object.keys(exampleEnv()).flatMap((name) => (/(?<!ADMIN|LIMIT)_PASSWORD$/.test(name) ? [[name, "own"]] : [])),
    );
    const production = { ...own, NODE_ENV: "production", KEY_ENCRYPTION_KEY: randomBytes(32).toString("base64") };
    for (const [name] of nodes())
      for (const env of [{}, production]) {
        const without = { ...loadConfig(environmentOf(name, env)), nodeId: expect.any(String) as string };
        expect(loadConfig(environmentOf(name, { ...exampleEnv(), ...env }))).toEqual(without);
      }
    expect(compose(exampleEnv())["api"]!.ports).toEqual(compose()["api"]!.ports);
  });

  test("production refuses each of its passwords, and accepts others", () => {
    const passwords = Object.keys(exampleEnv()).filter((name) => /^(?!ADMIN|RATE_LIMIT).*_PASSWORD$/.test(name));
    const own = {
      ...Object.fromEntries(passwords.map((name) => [name, `own-${name}`])),
      KEY_ENCRYPTION_KEY: randomBytes(32).toString("base64"),
    };
    for (const [name] of nodes()) {
      for (const variable of name === "api" ? ["TRANSPORTER"] : ["TRANSPORTER", DATABASES[name]]) {
        const refusal = `${variable} has a default password`;
        expect(() => loadConfig(environmentOf(name, { NODE_ENV: "production" }))).toThrow(refusal);
      }
      expect(loadConfig(environmentOf(name, { NODE_ENV: "production", ...own })).production).toBe(true);
    }
    // and there are no others
    const secrets = textOf("docker-compose.yml").matchAll(/(?:PASS(?:WORD)?: (?!\$)|PASS(?:WORD)?:-)([^\s}]+)/g);
    expect(new Set([...secrets].map(([, secret]) => secret))).toEqual(new Set(["shop-dev"]));
  });
});
