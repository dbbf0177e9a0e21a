import assert from "node:assert/strict";
import { chmod, chown, readdir, readFile, stat, truncate, writeFile } from "node:fs/promises";
import { after, before, describe, it } from "node:test";
import { DatabaseSync } from "node:sqlite";
import { execute } from "../../test/support/command.ts";
import { AS_NOBODY } from "../../test/support/nobody.ts";
import { TemporaryDirectory } from "../../test/support/temporary-directory.ts";
import { APP, conversion, describeConversionStore, LAYER, named } from "./conversion-store.contract.ts";
import { ConversionTable } from "./conversion-table.ts";
import { openConversionStore } from "./open-store.ts";
import { openSqliteDatabase } from "./sqlite-database.ts";

let directory: TemporaryDirectory;
before(async () => (directory = await TemporaryDirectory.create()));
after(async () => await directory[Symbol.asyncDispose]());

let files = 0;
const newPath = (): string => directory.join(`${++files}`, "conversions.sqlite");
const openStore = async (path: string, busyTimeoutMs?: number): Promise<ConversionTable> =>
  new ConversionTable(await openSqliteDatabase(path, { busyTimeoutMs }));

let current = "";
describeConversionStore("SQLite", () => ({
  openEmpty: async () => await openStore((current = newPath())),
  openAgain: async () => await openStore(current),
}));

describe("a SQLite conversion database", () => {
  it("is for its user alone, whatever the umask and whatever it was before", async () => {
    const path = newPath();
    const before = process.umask(0);
    try {
      const store = await openStore(path);
      await store.insert(conversion());
      assert.equal((await stat(directory.join(`${files}`))).mode & 0o777, 0o700);
      for (const name of await readdir(directory.join(`${files}`))) {
        assert.equal((await stat(directory.join(`${files}`, name))).mode & 0o777, 0o600, name);
      }
      await store.close();
      await chmod(path, 0o666);
      await (await openStore(path)).close();
      assert.equal((await stat(path)).mode & 0o777, 0o600);
    } finally {
      process.umask(before);
    }
  });

  it("is where the caller says, and is there again the next time", async () => {
    const where = directory.join("cache", "dedup");
    for (const isNew of [true, false]) {
      const store = await openConversionStore({ directory: where });
      assert.equal(store?.name, directory.join("cache", "dedup", "conversions.sqlite"));
      assert.equal(await store?.insert(conversion()), isNew);
      await store?.close();
    }
  });

  it("is made once by many that open it at the same time", async () => {
    const path = newPath();
    const stores = await Promise.all(Array.from({ length: 8 }, async () => await openStore(path)));
    const won = await Promise.all(stores.map(async (store) => await store.insert(conversion())));
    assert.equal(won.filter((was) => was).length, 1);
    for (const store of stores) await store.close();
  });

  it("waits for another process that writes, without stopping this one", async () => {
    const path = newPath();
    const store = await openStore(path);
    const writer = new DatabaseSync(path);
    writer.exec("begin immediate");
    let isInserted = false;
    const inserting = store.insert(conversion()).then((result) => (isInserted = result));
    assert.deepEqual(await store.find(APP, LAYER), []); // readers do not wait
    assert.equal(isInserted, false);
    writer.exec("commit");
    assert.equal(await inserting, true);
    writer.close();
    await store.close();
  });

  it("says who is in the way of a file that stays locked", async () => {
    const path = newPath();
    const store = await openStore(path, 50);
    const writer = new DatabaseSync(path);
    writer.exec("begin exclusive");
    await assert.rejects(store.insert(conversion()), { code: "UNAVAILABLE", message: /another process has locked/ });
    writer.exec("rollback");
    assert.equal(await store.insert(conversion()), true);
    writer.close();
    await store.close();
  });

  it("calls damage by its name, says what to delete, and never gives a wrong row", async () => {
    const path = newPath();
    const whole = await openStore(path);
    for (let number = 0; number < 200; number++) await whole.insert(conversion({ repository: `r/${number}` }));
    await whole.close();
    const bytes = await readFile(path);
    assert.ok(bytes.length > 40_000);
    const use = async (damaged: Uint8Array): Promise<string> => {
      const copy = newPath();
      await (await openStore(copy)).close();
      await writeFile(copy, damaged);
      try {
        const store = await openStore(copy);
        try {
          for (const repository of await store.repositories()) await store.list(repository);
          return "fine";
        } finally {
          await store.close();
        }
      } catch (error) {
        assert.ok(error instanceof Error && "code" in error);
        assert.match(error.message, /^\/.*conversions\.sqlite: /);
        assert.match(error.message, /delete/);
        return String(error.code);
      }
    };
    assert.equal(await use(bytes), "fine");
    assert.equal(await use(new Uint8Array(0)), "fine"); // an empty file is an empty database
    assert.equal(await use(bytes.subarray(0, 10)), "CORRUPT");
    for (const length of [4096, 4097, 20_480, bytes.length - 4096])
      assert.equal(await use(bytes.subarray(0, length)), "CORRUPT", `${length}`);
    assert.equal(await use(Buffer.from("not a database, but long enough to be one".repeat(100))), "CORRUPT");
    const zeroed = Buffer.from(bytes);
    zeroed.fill(0, 4096, 12_288);
    assert.equal(await use(zeroed), "CORRUPT");
    // In the middle of a digest SQLite cannot see it, but we do.
    const digest = bytes.toString("latin1").replaceAll(named("converted").slice(0, 40), (text) => `${text.slice(0, -2)}zz`);
    assert.equal(await use(Buffer.from(digest, "latin1")), "CORRUPT");
  });

  it("notices a file that is cut while it is open", async () => {
    const path = newPath();
    const store = await openStore(path);
    for (let number = 0; number < 200; number++) await store.insert(conversion({ repository: `r/${number}` }));
    await store.close();
    const reopened = await openStore(path);
    await truncate(path, 8192);
    await assert.rejects(
      async () => {
        for (const repository of await reopened.repositories()) await reopened.list(repository);
      },
      { code: "CORRUPT", message: /damaged .* delete it/ },
    );
    await reopened.close();
  });

  it("leaves files of other programs and of newer versions alone", async () => {
    for (const [statement, expected] of [
      ["create table notes (text)", /of another program/],
      ["pragma application_id = 7", /of another program/],
      ["pragma application_id = 1818327673; pragma user_version = 2; create table x (y)", /version 2, this program knows 1/],
    ] as const) {
      const path = newPath();
      await (await openStore(path)).close();
      await truncate(path, 0);
      const other = new DatabaseSync(path);
      other.exec(statement);
      other.close();
      const before = await readFile(path);
      await assert.rejects(openStore(path), { code: "UNSUPPORTED", message: expected });
      assert.deepEqual(await readFile(path), before);
    }
  });

  it("says what to do about files and directories that cannot be written", async () => {
    await assert.rejects(openStore("/dev/null/x.sqlite"), { code: "UNAVAILABLE", message: /\/dev\/null\/x\.sqlite: .*name another file/ });
    await assert.rejects(openStore(directory.path), { code: "UNAVAILABLE" });
    await assert.rejects(openStore(""), { code: "USAGE" });
    const path = newPath();
    await (await openStore(path)).close();
    await chmod(path, 0o444);
    await chmod(directory.path, 0o755);
    await chmod(directory.join(`${files}`), 0o755);
    if (process.geteuid?.() === 0) await chown(path, 1, 1);
    const script = `import(${JSON.stringify(import.meta.resolve("./sqlite-database.ts"))}).then((m) => m.openSqliteDatabase(process.argv[1])).catch((e) => console.log(e.code, e.message))`;
    const node = [process.execPath, "--input-type=module", "-e", script, path];
    // Root may write everything.
    const asNobody = process.geteuid?.() === 0 ? ["setpriv", ...AS_NOBODY] : [];
    const [program, ...args] = [...asNobody, ...node];
    const { stdout } = await execute(program, args);
    assert.match(stdout.toString(), /^DENIED .*conversions\.sqlite: .*make file and directory writable/);
  });

  it("keeps what was inserted when the process is killed", async () => {
    const path = newPath();
    const script = `
      const { openSqliteDatabase } = await import(${JSON.stringify(import.meta.resolve("./sqlite-database.ts"))});
      const { ConversionTable } = await import(${JSON.stringify(import.meta.resolve("./conversion-table.ts"))});
      const store = new ConversionTable(await openSqliteDatabase(process.argv[1]));
      await store.insert(${JSON.stringify(conversion())});
      process.kill(process.pid, "SIGKILL");`;
    const { status } = await execute(process.execPath, ["--input-type=module", "-e", script, path]);
    assert.equal(status, null);
    const store = await openStore(path);
    assert.deepEqual(await store.find(APP, LAYER), [conversion()]);
    await store.close();
  });
});
