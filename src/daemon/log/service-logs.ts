import type { ServiceConfig } from "../config/service-config.ts";
import { AuditLog } from "./audit-log.ts";
import { LineFile } from "./line-file.ts";
import { logLine } from "./log-line.ts";
import { createLog, type Log } from "./log.ts";

const MIB = 2 ** 20;
const DEFAULT_LEVEL = 1;
const AUDIT_ROTATION = { limitBytes: 10 * MIB, files: 3 };

/** Where a process of the service says what is going on. */
export interface ServiceLogs {
  readonly log: Log;
  /** Undefined: nobody wants to know. */
  readonly audit: AuditLog | undefined;
  readonly close: () => void;
}

/**
 * Opens the logs that a configuration names. Without one, and for what cannot be written there, lines go to `standardError`: a log is no
 * reason to serve nothing. `who`: `daemon`, or `device ID`.
 */
export function openServiceLogs(config: ServiceConfig | undefined, who: string, standardError: (line: string) => void): ServiceLogs {
  if (config === undefined) {
    return { log: createLog({ who, level: DEFAULT_LEVEL, append: standardError }), audit: undefined, close: () => {} };
  }
  const { logConfig, enableAudit, auditPath } = config;
  const { logPath, logLevel, logSizeMB, logRotateNum } = logConfig;
  const file = new LineFile(logPath, { limitBytes: logSizeMB * MIB, files: logRotateNum }, (line, failure) => {
    if (failure !== undefined) standardError(logLine(new Date(), "error", who, `the log cannot be written, and goes on here: ${failure}`));
    standardError(line);
  });
  const log = createLog({ who, level: logLevel, append: (line) => file.append(line) });
  const auditFile = new LineFile(auditPath, AUDIT_ROTATION, (_, failure) => {
    if (failure !== undefined) log("error", `the audit log cannot be written: ${failure}`);
  });
  return {
    log,
    audit: enableAudit ? new AuditLog(auditFile) : undefined,
    close: () => {
      file.close();
      auditFile.close();
    },
  };
}
