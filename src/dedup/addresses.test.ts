import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { LazyError } from "../errors.ts";
import fc from "fast-check";
import { fingerprintOf, type FingerprintedOptions } from "./fingerprint.ts";
import { parseMysqlDsn } from "./mysql-dsn.ts";
import { openConversionStore } from "./open-store.ts";
import { parsePostgresAddress } from "./postgres-address.ts";

const SEED = Date.now() % 1_000_000;

function usage(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof LazyError && error.code === "USAGE", String(error));
    return error.message;
  }
  throw new Error("it was accepted");
}

describe("a MySQL data source name", () => {
  it("is read as the Go driver reads it", () => {
    const rows: [dsn: string, expected: Partial<ReturnType<typeof parseMysqlDsn>>][] = [
      ["conv:pw@tcp(127.0.0.1:3307)/conv", { user: "conv", password: "pw", endpoint: { host: "127.0.0.1", port: 3307 }, database: "conv" }],
      ["/d", { user: "", password: "", endpoint: { host: "127.0.0.1", port: 3306 }, database: "d", tls: "off" }],
      ["u@/d", { user: "u", password: "", endpoint: { host: "127.0.0.1", port: 3306 } }],
      ["u@tcp/d", { endpoint: { host: "127.0.0.1", port: 3306 } }],
      ["u@tcp(db.example)/d", { endpoint: { host: "db.example", port: 3306 } }],
      ["u@tcp([de:ad::be]:80)/d", { endpoint: { host: "de:ad::be", port: 80 } }],
      ["u@tcp([::1])/d", { endpoint: { host: "::1", port: 3306 } }],
      ["u:p@unix(/run/my sql/s.sock)/d", { endpoint: { socketPath: "/run/my sql/s.sock" } }],
      ["u@unix/d", { endpoint: { socketPath: "/tmp/mysql.sock" } }],
      ["u:p@:/(w)%20@tcp(h:1)/d", { user: "u", password: "p@:/(w)%20", endpoint: { host: "h", port: 1 } }],
      ["u:a:b@tcp(h)/d%2Fe?", { password: "a:b", database: "d/e" }],
      ["u@tcp(h)/d?tls=true", { tls: "verify" }],
      ["u@/d?tls=1&tls=false", { tls: "off" }],
      ["u@/d?tls=skip-verify", { tls: "skip-verify" }],
      ["u@/d?timeout=1m30s&readTimeout=1.5s&writeTimeout=2s", { connectTimeoutMs: 90_000, queryTimeoutMs: 2000 }],
      ["u@/d?timeout=300us&readTimeout=0", { connectTimeoutMs: 1, queryTimeoutMs: 30_000 }],
      ["u@/d?charset=utf8&parseTime=True&loc=Local&maxAllowedPacket=0", { variables: [] }],
      [
        "u@/d?wait_timeout=5&time_zone=%27%2B00%3A00%27",
        {
          variables: [
            ["wait_timeout", "5"],
            ["time_zone", "'+00:00'"],
          ],
        },
      ],
    ];
    for (const [dsn, expected] of rows) {
      const found = parseMysqlDsn(dsn);
      for (const [key, value] of Object.entries(expected)) assert.deepEqual(found[key as keyof typeof found], value, `${dsn}: ${key}`);
    }
  });

  it("is refused with its form and without itself", () => {
    const rows: [dsn: string, expected: RegExp][] = [
      ["garbage-secret", /no slash before the database's name/],
      ["", /no slash/],
      ["u:secret@tcp(h:1)/", /names no database/],
      ["u:secret@tcp(h:1/d", /closing bracket/],
      ["u:secret@h:1/d", /neither tcp nor unix/],
      ["u:secret@udp(h)/d", /neither tcp nor unix/],
      ["u:secret@tcp(h:0)/d", /not host or host:port/],
      ["u:secret@tcp(h:99999)/d", /not host or host:port/],
      ["u:secret@tcp(::1)/d", /IPv6 in square brackets/],
      ["u:secret@tcp(a b)/d", /not host or host:port/],
      ["u:secret@/d?tls=preferred", /none of true, skip-verify and false/],
      ["u:secret@/d?tls=true", /no host's name/],
      ["u:secret@tcp([::1])/d?tls=true", /no host's name/],
      ["u:secret@unix(/s)/d?tls=true", /no host's name/],
      ["u:secret@/d?tls", /without a value/],
      ["u:secret@/d?timeout=5", /no duration such as 30s/],
      ["u:secret@/d?timeout=48h", /more than a day/],
      ["u:secret@/d?x;y=1", /no system variable/],
      ["u:secret@/d?allowCleartextPasswords=true", /not supported/],
      ["u:secret@/d%zz", /does not start a code/],
      [`u:secret@/${"d".repeat(5000)}`, /longer than/],
    ];
    for (const [dsn, expected] of rows) {
      const message = usage(() => parseMysqlDsn(dsn));
      assert.match(message, expected);
      assert.match(message, /expected user:password@tcp/);
      assert.doesNotMatch(message, /secret/);
    }
  });
});

describe("a PostgreSQL address", () => {
  it("is a URL or a list of keywords", () => {
    const rows: [text: string, expected: Partial<ReturnType<typeof parsePostgresAddress>>][] = [
      [
        "postgres://u:p%40%3a%2F@db.example:5433/d",
        { user: "u", password: "p@:/", host: "db.example", port: 5433, database: "d", tls: "verify-full" },
      ],
      ["postgresql://u@[::1]/", { user: "u", password: "", host: "::1", port: 5432, database: "u", tls: "off" }],
      ["postgres://u@/d?host=%2Frun%2Fpg&sslmode=disable", { host: "/run/pg", database: "d", tls: "off" }],
      ["postgres://u@h/d?sslmode=require&connect_timeout=3", { tls: "skip-verify", connectTimeoutMs: 3000 }],
      ["postgres://h/d?user=u&password=a:b", { user: "u", password: "a:b" }],
      ["user=u", { host: "localhost", port: 5432, database: "u", tls: "off" }],
      [
        "host = h  port=1 user='a b' password='it\\'s \\\\' dbname=d\\ e sslmode=verify-ca",
        { host: "h", port: 1, user: "a b", password: "it's \\", database: "d e", tls: "verify-ca" },
      ],
      ["host=127.0.0.1 user=u password='' sslrootcert=/ca.pem", { password: "", tls: "off", rootCertificate: "/ca.pem" }],
    ];
    for (const [text, expected] of rows) {
      const found = parsePostgresAddress(text);
      for (const [key, value] of Object.entries(expected)) assert.deepEqual(found[key as keyof typeof found], value, `${text}: ${key}`);
    }
  });

  it("is refused with its form and without itself", () => {
    const rows: [text: string, expected: RegExp][] = [
      ["", /is empty/],
      ["garbage-secret", /neither a URL nor a list/],
      ["postgres://u:secret/1@h/d", /taken apart/],
      ["postgres://u:secret%zz@h/d", /does not start a code/],
      ["postgres://u:secret@a,b/d", /not one name/],
      ["postgres://:secret@h/d", /names no user/],
      ["postgres://u:secret@h:0/d", /port that is no number/],
      ["postgres://u:secret@h/d?sslmode=prefer", /none of disable, require, verify-ca and verify-full/],
      ["postgres://u:secret@h/d?secret=1", /none of host/],
      ["user=u password=two secret=words", /none of host/],
      ["user=u password='secret", /neither a URL nor a list/],
      ["user=u password=secret connect_timeout=never", /connect_timeout that is no number/],
    ];
    for (const [text, expected] of rows) {
      const message = usage(() => parsePostgresAddress(text));
      assert.match(message, expected);
      assert.match(message, /expected postgres:\/\//);
      assert.doesNotMatch(message, /secret/);
    }
  });
});

it(`any text is an address or a wrong call (seed ${SEED})`, () => {
  const alphabet = [
    "u",
    ":",
    "p",
    "@",
    "tcp(h:1)",
    "/",
    "d",
    "?",
    "=",
    "&",
    "%2",
    "'",
    "\\",
    " ",
    "[",
    "]",
    ")",
    "postgres://",
    "host=",
    "unix(",
    "timeout=",
    "sslmode=",
    "\0",
    "é",
    "\n",
  ];
  const text = fc.array(fc.constantFrom(...alphabet), { maxLength: 40 }).map((parts) => parts.join(""));
  const check = (dsn: string): void => {
    for (const parse of [parseMysqlDsn, parsePostgresAddress]) {
      try {
        parse(dsn);
      } catch (error) {
        assert.ok(error instanceof LazyError && error.code === "USAGE", String(error));
      }
    }
  };
  fc.assert(fc.property(text, check), { seed: SEED, numRuns: 5000 });
  fc.assert(
    fc.property(fc.string(), fc.string({ minLength: 1 }), (user, password) => {
      fc.pre(!user.includes(":"));
      const found = parseMysqlDsn(`${user}:${password}@tcp(h:1)/d`);
      assert.deepEqual([found.user, found.password], [user, password]);
    }),
    { seed: SEED, numRuns: 1000 },
  );
});

it("a fingerprint differs whenever an option does and names no format that is none", () => {
  const options: FingerprintedOptions = {
    format: "overlaybd",
    formatVersion: 1,
    filesystem: "ext4",
    virtualSize: 64 * 2 ** 30,
    base: "mkfs",
    algorithm: "lz4",
    blockSize: 4096,
  };
  assert.equal(fingerprintOf(options), "overlaybd-1,ext4,vsize=68719476736,mkfs,lz4,4096");
  const changes = [
    { format: "turbo" },
    { formatVersion: 2 },
    { filesystem: "erofs" },
    { virtualSize: 1 },
    { algorithm: "zstd" },
    { blockSize: 512 },
  ];
  assert.equal(new Set([options, ...changes.map((change) => ({ ...options, ...change }))].map(fingerprintOf)).size, changes.length + 1);
  for (const bad of [{ format: "a,b" }, { filesystem: "" }, { algorithm: "Ä" }, { blockSize: 0.5 }, { virtualSize: -1 }]) {
    assert.throws(() => fingerprintOf({ ...options, ...bad }), { code: "USAGE" });
  }
});

it("a choice of database that contradicts itself is a wrong call", async () => {
  const rows: [choice: { type?: string; address?: string }, expected: RegExp][] = [
    [{ type: "oracle" }, /"oracle", expected one of none, sqlite, mysql, postgres/],
    [{ address: "u:secret@/d" }, /--db-str without --db-type/],
    [{ type: "mysql" }, /needs --db-str/],
    [{ type: "postgres" }, /needs --db-str/],
    [{ type: "sqlite", address: "" }, /is empty/],
    [{ type: "mysql", address: "secret" }, /no slash/],
  ];
  for (const [choice, message] of rows) {
    await assert.rejects(openConversionStore({ ...choice, directory: "/nonexistent" }), (error: LazyError) => {
      assert.equal(error.code, "USAGE");
      assert.match(error.message, message);
      return !error.message.includes("secret");
    });
  }
  // Turned off on the command line, set in the environment.
  assert.equal(await openConversionStore({ type: "none", address: "u:secret@/d", directory: "/nonexistent" }), undefined);
});
