import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { inspect } from "node:util";
import {
  APP,
  conversion,
  describeConversionStore,
  LAYER,
  MANIFEST,
  named,
  withoutUndefined,
} from "../../src/dedup/conversion-store.contract.ts";
import type { ConversionStore } from "../../src/dedup/conversion-store.ts";
import { openConversionStore } from "../../src/dedup/open-store.ts";
import { DOCKER_MANIFEST } from "../../src/oci/media-types.ts";
import { Mariadb, MARIADB_USER } from "../support/mariadb.ts";
import { lazylayer } from "../support/programs.ts";
import { pause, resume, unusedPort } from "../support/server-process.ts";

let server: Mariadb;
before(async () => (server = await Mariadb.start()));
after(async () => await server[Symbol.asyncDispose]());

let databases = 0;
const newDatabase = async (): Promise<string> => await server.createDatabase(`conv${++databases}`);
const openStore = async (address: string, init = true): Promise<ConversionStore> => {
  const store = await openConversionStore({ type: "mysql", address, directory: "/nonexistent" }, { init });
  assert.ok(store);
  return store;
};

let current = "";
describeConversionStore("MariaDB", () => ({
  openEmpty: async () => await openStore((current = await newDatabase())),
  openAgain: async () => await openStore(current),
}));

/** The tables as users of the convertor have made them by hand: with a collation that knows no case. */
const MADE_BY_HAND = `
  create table overlaybd_layers (host varchar(255) not null, repo varchar(255) not null, chain_id varchar(255) not null,
    data_digest varchar(255) not null, data_size bigint not null, primary key (host, repo, chain_id), key by_chain (host, chain_id)) charset=utf8;
  create table overlaybd_manifests (host varchar(255) not null, repo varchar(255) not null, src_digest varchar(255) not null,
    out_digest varchar(255) not null, data_size bigint not null, mediatype varchar(255) not null,
    primary key (host, repo, src_digest, mediatype), key by_source (host, src_digest)) charset=utf8;`;

const layerStatement = (host: string, repository: string, digest: string = named("converted")): string =>
  `insert into overlaybd_layers(host, repo, chain_id, data_digest, data_size) values('${host}','${repository}','${named("chain")}','${digest}',684544);`;

async function failure(opening: Promise<unknown>): Promise<{ code: string; message: string }> {
  try {
    await opening;
  } catch (error) {
    assert.ok(error instanceof Error && "code" in error);
    assert.ok(!inspect(error, { depth: 9, showHidden: true }).includes(MARIADB_USER.password), "the password is in the error");
    return { code: String(error.code), message: error.message };
  }
  throw new Error("it was accepted");
}

describe("a conversion store that shares MySQL with the standalone convertor", () => {
  it("finds what the convertor's statements wrote, as rows without a fingerprint", async () => {
    const address = await newDatabase();
    const name = `conv${databases}`;
    await server.sql(MADE_BY_HAND, name);
    const manifest = [APP.host, APP.repository, MANIFEST.digest, named("manifest"), "1522", DOCKER_MANIFEST].map((text) => `'${text}'`);
    await server.sql(
      `${layerStatement(APP.host, APP.repository)} ${layerStatement(APP.host, "other")}
       insert into overlaybd_manifests(host, repo, src_digest, out_digest, data_size, mediatype) values(${manifest.join(",")});`,
      name,
    );
    const store = await openStore(address);
    const layer = withoutUndefined(conversion({ fingerprint: undefined }));
    assert.deepEqual(await store.find(APP, LAYER), [layer]);
    assert.deepEqual(await store.findElsewhere(APP, LAYER), [{ ...layer, repository: "other" }]);
    const source = { ...MANIFEST, mediaType: DOCKER_MANIFEST };
    assert.deepEqual(await store.find(APP, source), [{ ...APP, source, digest: named("manifest"), size: 1522 }]);
    assert.deepEqual(await store.find(APP, MANIFEST), []);
    assert.equal(await store.remove({ ...layer, digest: named("something else") }), false);
    assert.equal(await store.remove(layer), true);
    assert.equal((await server.sql("select repo from overlaybd_layers", name)).trim(), "repo\nother");
    await store.close();
  });

  it("writes where the convertor looks only what has no fingerprint, with its columns and no others", async () => {
    const address = await newDatabase();
    const store = await openStore(address);
    const theirs = withoutUndefined(conversion({ fingerprint: undefined }));
    const manifest = withoutUndefined(conversion({ source: MANIFEST, digest: named("manifest"), size: 7, fingerprint: undefined }));
    const ours = conversion({ digest: named("ours") });
    for (const row of [theirs, manifest, ours]) assert.equal(await store.insert(row), true);
    const database = `conv${databases}`;
    const [host, repository] = [APP.host, APP.repository];
    assert.equal(
      await server.sql("select * from overlaybd_layers", database),
      `host\trepo\tchain_id\tdata_digest\tdata_size\n${host}\t${repository}\t${named("chain")}\t${named("converted")}\t684544\n`,
    );
    assert.equal(
      await server.sql("select * from overlaybd_manifests", database),
      "host\trepo\tsrc_digest\tout_digest\tdata_size\tmediatype\n" +
        `${host}\t${repository}\t${named("source")}\t${named("manifest")}\t7\t${MANIFEST.mediaType}\n`,
    );
    assert.deepEqual(await store.find(APP, LAYER), [ours, theirs]);
    assert.equal(await store.remove(ours), true);
    assert.deepEqual(await store.find(APP, LAYER), [theirs]);
    await store.close();
  });

  it("takes a row that both tables have for ours, and removes it from both", async () => {
    const address = await newDatabase();
    const store = await openStore(address);
    const ours = conversion();
    await store.insert(withoutUndefined({ ...ours, fingerprint: undefined }));
    await store.insert(ours);
    assert.deepEqual(await store.find(APP, LAYER), [ours]);
    assert.deepEqual(await store.list(APP), [ours]);
    assert.equal(await store.remove(ours), true);
    assert.equal(await server.sql("select * from overlaybd_layers", `conv${databases}`), "");
    await store.close();
  });

  it("compares names exactly where the database does not", async () => {
    const address = await newDatabase();
    await server.sql(
      MADE_BY_HAND + layerStatement(APP.host.toUpperCase(), APP.repository) + layerStatement(APP.host, "Team/Other"),
      `conv${databases}`,
    );
    const store = await openStore(address);
    assert.deepEqual(await store.find(APP, LAYER), []);
    assert.deepEqual(await store.list({ ...APP, repository: "team/other" }), []);
    assert.deepEqual(
      (await store.findElsewhere(APP, LAYER)).map(({ repository }) => repository),
      ["Team/Other"],
    );
    await store.close();
  });

  it("names a row that makes no sense, and can still remove what is around it", async () => {
    const address = await newDatabase();
    const store = await openStore(address);
    await server.sql(layerStatement(APP.host, APP.repository, "sha256:zz"), `conv${databases}`);
    await assert.rejects(store.find(APP, LAYER), {
      code: "CORRUPT",
      message: /overlaybd_layers: row of registry.*data_digest is "sha256:zz".*delete the row/,
    });
    await store.close();
  });
});

describe("a MySQL server", () => {
  it("is reached over its socket and over TLS, verified or not", async () => {
    const address = await newDatabase();
    await (await openStore(address)).close();
    const name = `conv${databases}`;
    const login = `${MARIADB_USER.user}:${MARIADB_USER.password}`;
    for (const good of [
      `${login}@unix(${server.socket})/${name}`,
      `${login}@tcp(localhost:${server.port})/${name}?timeout=5s&parseTime=true&charset=utf8mb4,utf8&loc=Local`,
      server.dsn(name, "?tls=skip-verify&tx_isolation=%27READ-COMMITTED%27&wait_timeout=60"),
    ]) {
      const store = await openStore(good, false);
      assert.deepEqual(await store.find(APP, LAYER), []);
      await store.close();
    }
    const unknown = await failure(openStore(`${login}@tcp(localhost:${server.port})/${name}?tls=true`, false));
    assert.deepEqual([unknown.code, /certificate not accepted/.test(unknown.message)], ["UNAVAILABLE", true], unknown.message);
    const options = ["db", "ls", "--db-type", "mysql", "--db-str"];
    const trusted = { env: { NODE_EXTRA_CA_CERTS: server.certificate } };
    const verified = await lazylayer([...options, `${login}@tcp(localhost:${server.port})/${name}?tls=true`], trusted);
    assert.deepEqual([verified.status, verified.stderr], [0, ""]);
  });

  it("refuses with the reason and the remedy, and without the password", async () => {
    const address = await newDatabase();
    const wrong = await failure(openStore(address.replace(MARIADB_USER.password, "wrong-secret")));
    assert.equal(wrong.code, "DENIED");
    assert.match(wrong.message, /^MySQL at 127\.0\.0\.1:\d+, database conv\d+: Access denied.*check user, password and grants$/);
    assert.doesNotMatch(wrong.message, /wrong-secret/);
    assert.equal((await failure(openStore(server.dsn("mysql")))).code, "DENIED");
    assert.equal((await failure(openStore(server.dsn("conv_none")))).code, "NOT_FOUND");
    assert.match((await failure(openStore(server.dsn("conv_none")))).message, /create database/);
    const missing = await failure(openStore(address, false));
    assert.deepEqual([missing.code, missing.message.endsWith("make the tables: lazylayer db init")], ["NOT_FOUND", true]);
    const nobody = await failure(openStore(`conv:secret-2@tcp(127.0.0.1:${await unusedPort()})/conv`));
    assert.deepEqual(
      [nobody.code, /^MySQL at 127\.0\.0\.1:\d+, database conv: cannot be reached/.test(nobody.message)],
      ["UNAVAILABLE", true],
    );
    assert.match(
      (await failure(openStore("conv:secret-2@unix(/nonexistent/socket)/conv"))).message,
      /MySQL at \/nonexistent\/socket.*cannot be reached/,
    );
    const typo = await failure(openStore(`${address}?tsl=true`));
    assert.deepEqual([typo.code, /tsl/.test(typo.message)], ["USAGE", true]);
    await server.sql(`create table conv${databases}.overlaybd_layers (host text)`);
    assert.equal((await failure((async () => await (await openStore(address)).find(APP, LAYER))())).code, "UNSUPPORTED");
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

  it("that hangs is given up on", async () => {
    const address = await newDatabase();
    const store = await openStore(`${address}?readTimeout=300ms&timeout=300ms`);
    await pause(server.pids);
    try {
      await assert.rejects(store.find(APP, LAYER), { code: "UNAVAILABLE" });
      assert.equal((await failure(openStore(`${address}?timeout=300ms`))).code, "UNAVAILABLE");
    } finally {
      resume(server.pids);
    }
    assert.deepEqual(await store.find(APP, LAYER), []);
    await store.close();
  });
});

describe("lazylayer db with MySQL", () => {
  it("makes the tables and shows both tools' rows", async () => {
    const address = await newDatabase();
    const options = ["--db-type", "mysql", "--db-str", address];
    const early = await lazylayer(["db", "ls", ...options]);
    assert.deepEqual([early.status, early.stdout.toString()], [1, ""]);
    assert.match(early.stderr, /lazylayer db init/);
    assert.ok(!early.stderr.includes(MARIADB_USER.password));
    for (let times = 0; times < 2; times++) assert.equal((await lazylayer(["db", "init", ...options])).status, 0);
    await server.sql(layerStatement(APP.host, APP.repository), `conv${databases}`);
    const listed = await lazylayer(["db", "ls", "--json", ...options], { env: { LAZYLAYER_DB_STR: join("/", "unused") } });
    assert.deepEqual(JSON.parse(listed.stdout.toString()), {
      host: APP.host,
      repository: APP.repository,
      kind: "layer",
      source: named("chain"),
      digest: named("converted"),
      size: 684_544,
    });
  });
});
