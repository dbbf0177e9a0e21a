import type { Fault } from "../support/hostile-registry.ts";
import { WHY, type Replay } from "./convertor-replay-row.ts";
import type { FaultOf } from "./convertor-replay-stage.ts";

/** In the paths of blobs of `small-oci:v1`. */
const CONFIG = /blobs\/sha256:cb9619ed/;
const FIRST_LAYER = /blobs\/sha256:a0f179cc/;
const LAYER = /blobs\/sha256:cf71ef90/;

/** Wrong or failing answers of a registry; the faults are as many as the standalone convertor met. */
const FAULTS: readonly Replay[] = [
  { name: "fault-corrupt-config", fault: at("GET", CONFIG, { kind: "corrupt", at: 40 }), says: /sha256|JSON/ },
  { name: "fault-corrupt-layer", fault: at("GET", LAYER, { kind: "corrupt", at: 60_000 }), says: /sha256:cf71|CRC|gzip/i },
  {
    name: "fault-trunc-layer",
    like: "obd-small-oci",
    fault: at("GET", FIRST_LAYER, { kind: "truncate", afterBytes: 300_000 }),
    faultTimes: 1,
  },
  { name: "fault-layer-404", fault: at("GET", LAYER, status(404)), says: /cf71ef90/ },
  { name: "fault-layer-429-once", like: "obd-small-oci", fault: at("GET", LAYER, status(429)), faultTimes: 2 },
  { name: "fault-layer-500-once", like: "obd-small-oci", fault: at("GET", LAYER, status(500)), faultTimes: 1 },
  survives("fault-layer-500", at("GET", LAYER, status(500)), 2),
  survives("fault-head-503", ({ url }) => (url.endsWith("manifests/v1") ? status(503) : undefined), 2),
  survives("fault-head-drop", at("HEAD", /\/blobs\//, { kind: "reset" }), 3),
  { name: "fault-put-500-once", like: "obd-small-oci", fault: at("PUT", /\/uploads\//, status(500)), faultTimes: 1 },
  survives("fault-put-500", at("PUT", /\/uploads\//, status(500)), 2),
  {
    ...survives("fault-put-drop", at("PUT", /\/uploads\//, { kind: "resetUpload", afterBytes: 1000 }), 1),
    differs: [
      { exit: 0, reason: WHY.uploadBreaks },
      { result: "checked", reason: WHY.uploadBreaks },
    ],
  },
  { name: "fault-post-403", fault: at("POST", /\/uploads\//, status(403)), says: /403|denied|not allowed/i },
  { name: "fault-manifest-400", fault: at("PUT", /\/manifests\//, status(400)), says: /400/ },
  {
    name: "fault-registry-dies",
    fault: (request, proxy) => {
      if (!FIRST_LAYER.test(request.url)) return undefined;
      void proxy.stop();
      return { kind: "reset" };
    },
    says: /cannot be reached|refused|ECONN/i,
  },
  ...(["SIGINT", "SIGTERM"] as const).map((signal): Replay => ({
    name: `fault-sig${signal.slice(3)}`,
    args: ["-r", "{proxy}/redis", "-i", "7.0", "-o", "fs", "-d", "wd/x"],
    signal,
    says: /interrupt|terminat|SIG/i,
    ...(signal === "SIGINT" && { differs: [{ exit: 130, reason: WHY.sigint }] }),
  })),
  // Enough for us. What happens when it is not: test/faults/disk.test.ts.
  ...["5400", "6200", "7500"].map((kilobytes): Replay => ({
    name: `fault-diskfull-${kilobytes}`,
    like: "obd-small-oci",
    disk: `${kilobytes}k`,
    differs: [
      { exit: 0, reason: WHY.space },
      { result: "checked", reason: WHY.space },
    ],
  })),
];

/** Recorded cases that are not played. */
export const NOT_PLAYED: Readonly<Record<string, string>> = {
  "fault-diskfull": "the size of the disk was not recorded",
  "fault-diskfull2": "the size of the disk was not recorded",
};

/** Recorded cases that are the same as another here: the same call with the same result, of another registry or at another time. */
export const SAME: Readonly<Record<string, string>> = {
  "obd-small-oci-run2": "obd-small-oci",
  "obd-small-oci-installed": "obd-small-oci",
  try1: "obd-small-oci",
  "toci-small-docker-installed": "toci-small-docker",
  "toci-small-docker-run2": "toci-small-docker",
  "referrer-5005-small-oci": "referrer-5004-small-oci",
  "referrer-5005-small-docker": "referrer-5004-small-docker",
  "referrer-5005-multi-oci": "referrer-5004-multi-oci",
  "referrer-5005-multi-docker": "referrer-5004-multi-docker",
};

function at(method: string, url: RegExp, fault: Fault): FaultOf {
  return (request) => (request.method === method && url.test(request.url) ? fault : undefined);
}

function status(code: number): Fault {
  return { kind: "answer", status: code };
}

/** What the other tool gives up on, and we do not. */
function survives(name: string, fault: FaultOf, faultTimes: number): Replay {
  const reason = WHY.retries;
  return { name, fault, faultTimes, like: "obd-small-oci", differs: [{ exit: 0, reason }] };
}

/** Traces of what is asked of a registry. */
const TRACES: readonly Replay[] = [
  ...["small-oci", "small-docker", "multi-oci"].flatMap((image): Replay[] => [
    { name: `http-obd-${image}`, sequence: `http-${image}`, like: `obd-${image}` },
    { name: `http-obd-${image}-again`, sequence: `http-${image}`, like: `obd-${image}` },
  ]),
  { name: "http-auth", behind: "auth", prepare: ["-r", "{proxy}/small-oci", "-i", "v1", "-o", "before", "-u", "{user}"] },
  { name: "http-referrer", behind: "zot", like: "referrer-5004-small-oci" },
];

/** What a registry is asked, also when it fails. */
export const REGISTRY_REPLAYS: readonly Replay[] = [...FAULTS, ...TRACES];
