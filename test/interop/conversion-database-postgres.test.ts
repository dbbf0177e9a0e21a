import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { inspect } from "node:util";
import { APP, conversion, describeConversionStore, LAYER } from "../../src/dedup/conversion-store.contract.ts";
import type { ConversionStore } from "../../src/dedup/conversion-store.ts";
import { openConversionStore } from "../../src/dedup/open-store.ts";
import { parsePostgresAddress } from "../../src/dedup/postgres-address.ts";
import { openPostgresDatabase } from "../../src/dedup/postgres-database.ts";
import { Postgres, POSTGRES_USER } from "../support/postgres.ts";
import { lazylayer } from "../support/programs.ts";
import { pause, resume, unusedPort } from "../support/server-process.ts";

let server: Postgres;
before(async () => (server = await Postgres.start()));
after(async () => await server[Symbol.asyncDispose]());

let databases = 0;
const newDatabase = async (): Promise<string> => await server.createDatabase(`conv${++databases}`);
const openStore = async (address: string, init = true): Promise<ConversionStore> => {
  const store = await openConversionStore({ type: "postgres", address, directory: "/nonexistent" }, { init });
  assert.ok(store);
  return store;
};

let current = "";
describeConversionStore("PostgreSQL", () => ({
  openEmpty: async () => await openStore((current = await newDatabase())),
  openAgain: async () => await openStore(current),
}));

async function failure(opening: Promise<unknown>): Promise<{ code: string; message: string }> {
  try {
    await opening;
  } catch (error) {
    assert.ok(error instanceof Error && "code" in error);
    assert.ok(!inspect(error, { depth: 9, showHidden: true }).includes(POSTGRES_USER.password), "the password is in the error");
    return { code: String(error.code), message: error.message };
  }
  throw new Error("it was accepted");
}

describe("a PostgreSQL server", () => {
  it("is reached by URL and by keywords, over its socket and over TLS, verified or not", async () => {
    const address = await newDatabase();
    await (await openStore(address)).close();
    const name = `conv${databases}`;
    const { user, password } = POSTGRES_USER;
    const quoted = `'${password.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
    const secret = encodeURIComponent(password);
    const trusted = `sslrootcert=${server.certificate}`;
    for (const good of [
      `host=127.0.0.1 port=${server.port} user=${user} password=${quoted} dbname=${name}`,
      `host=${server.directory} port=${server.port} user=${user} dbname=${name} connect_timeout=5`,
      `postgresql://${user}@/${name}?host=${encodeURIComponent(server.directory)}&port=${server.port}`,
      `${address}?sslmode=require`,
      `${address}?sslmode=verify-ca&${trusted}`,
      `postgres://${user}:${secret}@localhost:${server.port}/${name}?sslmode=verify-full&${trusted}`,
    ]) {
      const store = await openStore(good, false);
      assert.deepEqual(await store.find(APP, LAYER), []);
      await store.close();
    }
    for (const bad of [`${address}?sslmode=verify-full&${trusted}`, `${address}?sslmode=verify-ca`]) {
      const { code, message } = await failure(openStore(bad, false));
      assert.deepEqual([code, /certificate not accepted/.test(message)], ["UNAVAILABLE", true], message);
    }
    assert.equal((await failure(openStore(`${address}?sslmode=verify-ca&sslrootcert=/nonexistent`))).code, "USAGE");
  });

  it("refuses with the reason and the remedy, and without the password", async () => {
    const address = await newDatabase();
    const wrong = await failure(openStore(address.replace(encodeURIComponent(POSTGRES_USER.password), "wrong-secret")));
    assert.equal(wrong.code, "DENIED");
    assert.match(wrong.message, /^PostgreSQL at 127\.0\.0\.1:\d+, database conv\d+: password authentication failed.*check user/);
    assert.doesNotMatch(wrong.message, /wrong-secret/);
    const none = await failure(openStore(`postgres://conv@127.0.0.1:${server.port}/conv${databases}`));
    assert.deepEqual([none.code, /put the password into --db-str/.test(none.message)], ["DENIED", true], none.message);
    const unknown = await failure(openStore(server.address("conv_none")));
    assert.deepEqual([unknown.code, /create database/.test(unknown.message)], ["NOT_FOUND", true]);
    const missing = await failure(openStore(address, false));
    assert.deepEqual([missing.code, missing.message.endsWith("make the tables: lazylayer db init")], ["NOT_FOUND", true]);
    const nobody = await failure(openStore(`postgres://conv:secret-2@127.0.0.1:${await unusedPort()}/conv`));
    assert.deepEqual(
      [nobody.code, /^PostgreSQL at 127\.0\.0\.1:\d+, database conv: cannot be reached/.test(nobody.message)],
      ["UNAVAILABLE", true],
    );
    assert.equal((await failure(openStore("host=/nonexistent user=conv"))).code, "UNAVAILABLE");
    const database = `conv${databases}`;
    await server.sql("create table lazylayer_conversions (host text)", database);
    assert.equal((await failure((async () => await (await openStore(address, false)).find(APP, LAYER))())).code, "DENIED");
    await server.sql("alter table lazylayer_conversions owner to conv", database);
    const store = await openStore(address, false);
    await assert.rejects(store.find(APP, LAYER), { code: "UNSUPPORTED" });
    await store.close();
  });

  it("makes the table once for many that want it at the same time", async () => {
    const address = await newDatabase();
    const stores = await Promise.all(Array.from({ length: 6 }, async () => await openStore(address)));
    for (const store of stores) await store.close();
  });

  it("names a row that makes no sense", async () => {
    const store = await openStore(await newDatabase());
    await store.insert(conversion());
    await server.sql("update lazylayer_conversions set converted_size = -1", `conv${databases}`);
    await assert.rejects(store.find(APP, LAYER), { code: "CORRUPT", message: /row of registry.*converted_size is "?-1"?.*delete the row/ });
    await store.close();
  });

  it("may be killed in the middle: calls fail clearly, and work again when it is back", async () => {
    const store = await openStore(await newDatabase());
    await store.insert(conversion());
    const busy = Promise.allSettled(
      Array.from({ length: 40 }, async (_, number) => await store.insert(conversion({ repository: `r/${number}` }))),
    );
    await server.kill();
    for (const result of await busy)
      if (result.status === "rejected") assert.equal((result.reason as { code: string }).code, "UNAVAILABLE");
    await assert.rejects(store.find(APP, LAYER), { code: "UNAVAILABLE", message: /127\.0\.0\.1:\d+.*cannot be reached/ });
    await server.startAgain();
    assert.equal((await store.find(APP, LAYER)).length, 1);
    // Connections that died while nobody used them are not noticed by anybody.
    await server.kill();
    await server.startAgain();
    assert.equal(await store.insert(conversion({ repository: "after" })), true);
    await store.close();
  });

  it("that hangs is given up on, also when the store is closed", async () => {
    const address = await newDatabase();
    await (await openStore(address)).close();
    const parsed = { ...parsePostgresAddress(address), connectTimeoutMs: 300 };
    const database = await openPostgresDatabase(parsed, { queryTimeoutMs: 300 });
    const pids = await server.pids();
    await pause(pids);
    try {
      await assert.rejects(database.select("select 1", []), { code: "UNAVAILABLE" });
      await assert.rejects(openPostgresDatabase(parsed), { code: "UNAVAILABLE" });
      await database.close();
    } finally {
      resume(pids);
    }
  });
});

describe("lazylayer db with PostgreSQL", () => {
  it("makes the table and shows its rows", async () => {
    const address = await newDatabase();
    const options = ["--db-type", "postgres"];
    const env = { LAZYLAYER_DB_STR: address };
    const early = await lazylayer(["db", "ls", ...options], { env });
    assert.deepEqual([early.status, early.stdout.toString()], [1, ""]);
    assert.match(early.stderr, /lazylayer db init/);
    for (let times = 0; times < 2; times++) assert.equal((await lazylayer(["db", "init", ...options], { env })).status, 0);
    const store = await openStore(address, false);
    await store.insert(conversion());
    await store.close();
    const { status, stdout, stderr } = await lazylayer(["db", "ls", ...options], { env });
    assert.deepEqual([status, stderr, stdout.toString().split("\t").slice(0, 2)], [0, "", [`${APP.host}/${APP.repository}`, "layer"]]);
  });
});
