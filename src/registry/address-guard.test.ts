import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { guardedLookup } from "./address-guard.ts";

const NAMES: Readonly<Record<string, readonly string[]>> = {
  "auth.example": ["192.0.2.1", "2001:db8::1"],
  "metadata.example": ["192.0.2.1", "169.254.169.254"],
  "six.example": ["fe80::1"],
  "mapped.example": ["::ffff:169.254.169.254"],
  "inside.example": ["127.0.0.1"],
  "registry.example": ["192.0.2.9"],
  "registry.test": ["127.0.0.1"],
};

async function lookUp(name: string, registry: string): Promise<unknown> {
  const lookup = guardedLookup(registry, async (hostname) =>
    (NAMES[hostname] ?? []).map((address) => ({ address, family: address.includes(":") ? 6 : 4 })),
  );
  return await new Promise((resolve, reject) => {
    lookup(name, { all: true }, (error, addresses) => (error ? reject(error) : resolve(addresses)));
  });
}

describe("names that a registry gives for other hosts", () => {
  it("are looked up", async () => {
    assert.deepEqual(await lookUp("auth.example", "registry.example"), [
      { address: "192.0.2.1", family: 4 },
      { address: "2001:db8::1", family: 6 },
    ]);
  });

  for (const name of ["metadata.example", "six.example", "mapped.example", "inside.example"]) {
    it(`are refused when they stand for an address inside: ${name}`, async () => {
      await assert.rejects(lookUp(name, "registry.example"), { code: "DENIED", message: /an address of this machine or network/ });
    });
  }

  it("may stand for this machine if the registry is there itself, by name or by address", async () => {
    for (const registry of ["registry.test", "127.0.0.1"]) {
      assert.deepEqual(await lookUp("inside.example", registry), [{ address: "127.0.0.1", family: 4 }]);
      await assert.rejects(lookUp("metadata.example", registry), { code: "DENIED" });
    }
  });
});
