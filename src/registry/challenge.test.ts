import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { parseChallenges } from "./challenge.ts";

const plain = (header: string | undefined): unknown =>
  parseChallenges(header).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]);

describe("parsing WWW-Authenticate", () => {
  for (const [header, expected] of [
    [undefined, []],
    ["", []],
    ["Basic", [["basic", {}]]],
    ['Basic realm="a b"', [["basic", { realm: "a b" }]]],
    [
      'Bearer realm="https://auth.x/token",service="r.x",scope="repository:a/b:pull,push"',
      [["bearer", { realm: "https://auth.x/token", service: "r.x", scope: "repository:a/b:pull,push" }]],
    ],
    ["Bearer realm=https://auth.x/token, Service = r.x", [["bearer", { realm: "https://auth.x/token", service: "r.x" }]]],
    [
      'Negotiate, Basic realm="x", Bearer realm="y"',
      [
        ["negotiate", {}],
        ["basic", { realm: "x" }],
        ["bearer", { realm: "y" }],
      ],
    ],
    ['Bearer realm="q\\"uo\\\\te"', [["bearer", { realm: 'q"uo\\te' }]]],
    ['Bearer realm="first",realm="second"', [["bearer", { realm: "first" }]]],
    ['realm="of nobody"', []],
    [
      'Bearer realm="open',
      [
        ["bearer", {}],
        ["realm", {}],
      ],
    ],
    [" , ,Basic", [["basic", {}]]],
  ] as const) {
    it(`understands ${header}`, () => assert.deepEqual(plain(header), expected));
  }

  it("gives back what was put in", () => {
    const name = fc.stringMatching(/^[a-z]{1,8}$/);
    const parameters = fc.dictionary(
      name,
      fc.string().filter((value) => !/[\r\n]/.test(value)),
      { maxKeys: 4, noNullPrototype: true },
    );
    const challenges = fc.array(fc.tuple(name, parameters), { maxLength: 4 });
    fc.assert(
      fc.property(challenges, (input) => {
        const quote = (value: string): string => `"${value.replace(/["\\]/g, "\\$&")}"`;
        const header = input.map(
          ([scheme, map]) =>
            `${scheme} ${Object.entries(map)
              .map(([key, value]) => `${key}=${quote(value)}`)
              .join(", ")}`,
        );
        assert.deepEqual(plain(header.join(", ")), input);
      }),
    );
  });

  it("ends, without an error, for any text", () => {
    const piece = fc.constantFrom("Bearer", " ", ",", "=", '"', "\\", "a", "realm=", "\t", "é");
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.array(piece, { maxLength: 30 }).map((pieces) => pieces.join("")),
        ),
        (text) => {
          assert.ok(Array.isArray(parseChallenges(text)));
        },
      ),
      { numRuns: 5000 },
    );
    for (const text of ["a=".repeat(50_000), '"'.repeat(100_000), "a, ".repeat(50_000), `a="${"\\".repeat(100_000)}`])
      parseChallenges(text);
  });
});
