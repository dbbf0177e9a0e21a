import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { LazyError } from "../../errors.ts";
import { parseServiceConfig, type ServiceConfig } from "./service-config.ts";

const SEED = 20_261_121;

function parse(raw: unknown): { readonly config: ServiceConfig; readonly notices: readonly string[] } {
  return parseServiceConfig(JSON.stringify(raw), "overlaybd.json");
}

function refuses(raw: unknown, message: string): void {
  assert.throws(() => parse(raw), { code: "USAGE", message: `overlaybd.json: ${message}` });
}

/** As packages of overlaybd install it. */
const PACKAGED = {
  logConfig: { logLevel: 1, logPath: "/var/log/overlaybd.log" },
  cacheConfig: { cacheType: "file", cacheDir: "/opt/overlaybd/registry_cache", cacheSizeGB: 4 },
  gzipCacheConfig: { enable: true, cacheDir: "/opt/overlaybd/gzip_cache", cacheSizeGB: 4 },
  credentialConfig: { mode: "file", path: "/opt/overlaybd/cred.json" },
  ioEngine: 0,
  download: { enable: true, delay: 600, delayExtra: 30, maxMBps: 100 },
  p2pConfig: { enable: false, address: "http://localhost:9731/dadip2p" },
  exporterConfig: { enable: false, uriPrefix: "/metrics", port: 9863, updateInterval: 60_000_000 },
  enableAudit: true,
  auditPath: "/var/log/overlaybd-audit.log",
};

describe("a service's configuration", () => {
  test("that is empty has the defaults", () => {
    const { config, notices } = parse({});
    assert.deepEqual(notices, []);
    assert.deepEqual(config.cacheConfig, {
      cacheType: "file",
      cacheDir: "/opt/overlaybd/registry_cache",
      cacheSizeGB: 4,
      refillSize: 262_144,
    });
    assert.equal(config.credentialConfig.mode, "file");
    assert.equal(config.credentialConfig.path, "/opt/overlaybd/cred.json");
    assert.deepEqual(config.logConfig, { logLevel: 1, logPath: "/var/log/overlaybd.log", logSizeMB: 10, logRotateNum: 3 });
    assert.deepEqual(config.download, { enable: false, delay: 300, delayExtra: 30, maxMBps: 100, tryCnt: 5, blockSize: 262_144 });
    assert.equal(config.prefetchConfig.concurrency, 16);
  });

  test("as packages install it is taken without a notice", () => {
    const { config, notices } = parse(PACKAGED);
    assert.deepEqual(notices, []);
    assert.equal(config.download.delay, 600);
    assert.equal(config.gzipCacheConfig.enable, true);
  });

  test("of earlier versions counts where its successors are not given", () => {
    const legacy = {
      registryCacheDir: "/old/cache",
      registryCacheSizeGB: 7,
      cacheType: "ocf",
      credentialFilePath: "/old/cred.json",
      logLevel: 3,
      logPath: "/old/log",
    };
    const old = parse(legacy);
    assert.deepEqual(old.config.cacheConfig, { cacheType: "file", cacheDir: "/old/cache", cacheSizeGB: 7, refillSize: 262_144 });
    assert.equal(old.config.credentialConfig.path, "/old/cred.json");
    assert.deepEqual(old.config.logConfig, { logLevel: 3, logPath: "/old/log", logSizeMB: 10, logRotateNum: 3 });
    assert.equal(old.notices.length, 1);
    assert.match(old.notices[0], /^cacheType is "ocf": /);
    const { config, notices } = parse({ ...legacy, ...PACKAGED });
    assert.deepEqual(config, parse(PACKAGED).config);
    assert.deepEqual(notices, [
      'registryCacheDir has no effect beside cacheConfig.cacheType; cacheConfig.cacheDir "/opt/overlaybd/registry_cache" counts',
    ]);
  });

  test("may have caches in the directories of layers", () => {
    const { config, notices } = parse({ cacheConfig: { cacheType: "download" } });
    assert.deepEqual([config.cacheConfig.cacheType, notices], ["download", []]);
  });

  test("refill sizes count for caches of earlier versions, too", () => {
    assert.equal(parse({ cacheConfig: { refillSize: 65_536 } }).config.cacheConfig.refillSize, 65_536);
  });

  for (const [raw, notice] of [
    [{ cacheConfig: { cacheType: "ocf" } }, /^cacheConfig\.cacheType is "ocf": .*cache of blocks.*blockSize has no effect$/],
    [{ cacheConfig: { cacheDir: "/x" } }, /^cacheConfig\.cacheDir has no effect without cacheConfig\.cacheType; registryCacheDir "\/opt/],
    [{ ioEngine: 1 }, /^ioEngine is 1, and has no effect/],
    [{ registryFsVersion: "v1" }, /^registryFsVersion is "v1", and has no effect/],
    [{ enableThread: true }, /^enableThread is true, and has no effect/],
    [{ exporterConfig: { updateInterval: 5 } }, /^exporterConfig\.updateInterval has no effect/],
    [{ logConfig: { logLevel: 0 } }, /^logConfig has no effect without logConfig\.logPath/],
    [{ credentialConfig: { mode: "http" } }, /^credentialConfig\.path is empty: registries are asked without credentials$/],
    [{ credentialConfig: { mode: "file", path: "/x", server_ca_path: "/y" } }, /server_ca_path have no effect in mode "file"$/],
    [{ gzipCacheConfig: { enable: true, refillSize: 12_288 } }, /^gzipCacheConfig\.refillSize is 12288; 16384 is used/],
    [
      { serviceConfig: { enable: true, address: "http://localhost:9862/x/" } },
      /^serviceConfig\.address is "http:\/\/localhost:9862\/x\/"; its path has no effect, and snapshots are asked of http:\/\/localhost:9862\/snapshot$/,
    ],
    [{ cacheConfg: {} }, /^cacheConfg is not known and has no effect; is cacheConfig meant\?$/],
    [{ p2pConfig: { adress: "x" } }, /^p2pConfig\.adress is not known and has no effect; is p2pConfig\.address meant\?$/],
    [{ download: { trycnt: 3 } }, /^download\.trycnt .*is download\.tryCnt meant\?$/],
    [{ somethingElse: 1 }, /^somethingElse is not known and has no effect$/],
  ] as const) {
    test(`with ${JSON.stringify(raw)} gets a notice`, () => {
      const { notices } = parse(raw);
      assert.equal(notices.length, 1, notices.join("\n"));
      assert.match(notices[0], notice);
    });
  }

  for (const [raw, message] of [
    [{ ioEngine: 3 }, "ioEngine is 3, expected a whole number from 0 to 2"],
    [{ cacheConfig: { refillSize: 5000 } }, "cacheConfig.refillSize is 5000, expected a power of two from 4096 to 16777216"],
    [{ cacheConfig: { cacheType: "memory" } }, 'cacheConfig.cacheType is "memory", expected file, ocf or download'],
    [{ cacheType: "" }, 'cacheType is "", expected file, ocf or download'],
    [
      { cacheConfig: { cacheType: "ocf", blockSize: 12_288 } },
      "cacheConfig.blockSize is 12288, expected one of 4096, 8192, 16384, 32768, 65536",
    ],
    [{ cacheConfig: { cacheSizeGB: -1 } }, "cacheConfig.cacheSizeGB is -1, expected GiB from 1 to 4294967295"],
    [{ download: { enable: "yes" } }, 'download.enable is "yes", expected true or false'],
    [{ logConfig: null }, "logConfig is null, expected an object"],
    [{ logConfig: { logRotateNum: 31 } }, "logConfig.logRotateNum is 31, expected files from 1 to 30"],
    [{ logLevel: 1.5 }, "logLevel is 1.5, expected a level: 0 debug, 1 info, 2 warning, 3 error, 4 fatal, from 0 to 4"],
    [{ credentialConfig: { mode: "ldap" } }, 'credentialConfig.mode is "ldap", expected file, http, https, uds or docker'],
    [
      { credentialConfig: { mode: "https", path: "http://x/" } },
      'credentialConfig.path is "http://x/", expected a URL that begins with https://',
    ],
    [
      { credentialConfig: { mode: "https", path: "https://x/", client_key_path: "/k" } },
      'credentialConfig.client_cert_path is "", expected the certificate of client_key_path',
    ],
    [{ credentialConfig: { timeout: 0 } }, "credentialConfig.timeout is 0, expected seconds from 1 to 2147483"],
    [{ credentialConfig: { timeout: 2_147_484 } }, "credentialConfig.timeout is 2147484, expected seconds from 1 to 2147483"],
    [{ certConfig: { certFile: "/c" } }, 'certConfig.keyFile is "", expected a path, as certFile is given'],
    [
      { p2pConfig: { enable: true, address: "localhost:9731" } },
      'p2pConfig.address is "localhost:9731", expected a URL like http://localhost:9731/accelerator',
    ],
    [{ serviceConfig: { enable: true, address: "" } }, 'serviceConfig.address is "", expected a URL like http://127.0.0.1:9862'],
    [
      { exporterConfig: { port: 70_000, uriPrefix: "metrics" } },
      'exporterConfig.uriPrefix is "metrics", expected a path that begins with /; exporterConfig.port is 70000, expected a port from 0 to 65535',
    ],
    [
      { lazylayer: { tokenServices: ["https://auth.example/"] } },
      'lazylayer.tokenServices[0] is "https://auth.example/", expected HOST or HOST:PORT',
    ],
    [{ userAgent: "a\nb" }, 'userAgent is "a\\nb", expected 1 to 1024 printable ASCII characters'],
  ] as const) {
    // prettier-ignore
    test(`with ${JSON.stringify(raw)} is refused with key, value and expectation`, () => refuses(raw, message));
  }

  test("that is no JSON object is refused without repeating it", () => {
    for (const text of ['{"secret": }', "// secret\n{}", "[1]", "", "secret"]) {
      assert.throws(
        () => parseServiceConfig(text, "overlaybd.json"),
        (error: Error) => {
          assert.ok(error instanceof LazyError && error.code === "USAGE");
          assert.match(error.message, /^overlaybd\.json: /);
          return !error.message.includes("secret");
        },
      );
    }
  });

  test("is, as what counts of it, a configuration of the same meaning without notices", () => {
    const raws = [
      {},
      PACKAGED,
      { cacheType: "ocf", logPath: "/l", logLevel: 0, credentialFilePath: "" },
      { auditPath: "", ioEngine: 2 },
      { lazylayer: { tokenServices: ["auth.example:5001"] } },
      { serviceConfig: { enable: true, address: "http://[::1]:80/x" } },
    ];
    for (const raw of raws) {
      const { config } = parse(raw);
      const again = parse(config);
      assert.deepEqual(again.config, config);
      assert.deepEqual(
        again.notices.filter((notice) => !notice.includes("path is empty")),
        [],
      );
    }
  });

  test("of any other content is taken or refused with a reason", () => {
    const keys = fc.constantFrom(...Object.keys(PACKAGED), "cacheType", "userAgent", "x", "__proto__", "constructor");
    const value = fc.jsonValue({ maxDepth: 2 });
    const section = fc.dictionary(fc.constantFrom("enable", "path", "mode", "address", "port", "refillSize", "__proto__"), value);
    fc.assert(
      fc.property(fc.dictionary(keys, fc.oneof(value, section)), (raw) => {
        try {
          assert.ok(parse(raw).config.cacheConfig.refillSize >= 4096);
        } catch (error) {
          assert.ok(error instanceof LazyError && error.code === "USAGE" && error.message.startsWith("overlaybd.json: "), String(error));
        }
      }),
      { seed: SEED, numRuns: 2000 },
    );
  });
});
