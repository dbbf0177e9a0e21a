import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "./command.ts";
import {
  answers,
  giveTo,
  makeCertificate,
  requireProgram,
  ServerProcess,
  serverUser,
  unusedPort,
  type ServerUser,
} from "./server-process.ts";

const PACKAGE = "mariadb-server";
/** Little memory, and no waiting for the disk; what was committed survives the process. */
const SMALL = ["--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=2"];

export const MARIADB_USER = { user: "conv", password: "p@ss:w/rd'\"(1)" };

/** A MariaDB server of its own, on loopback and a socket, with nothing in it but `MARIADB_USER`. */
export class Mariadb implements AsyncDisposable {
  readonly port: number;
  readonly directory: string;
  readonly #user: ServerUser | undefined;
  #server: ServerProcess | undefined;

  private constructor(port: number, directory: string, user: ServerUser | undefined) {
    this.port = port;
    this.directory = directory;
    this.#user = user;
  }

  static async start(): Promise<Mariadb> {
    for (const program of ["mariadbd", "mariadb-install-db", "mariadb"]) await requireProgram(program, PACKAGE);
    const user = await serverUser("mysql", PACKAGE);
    const directory = await mkdtemp(join(tmpdir(), "lazylayer-mariadb-"));
    const server = new Mariadb(await unusedPort(), directory, user);
    try {
      await mkdir(server.#data);
      await makeCertificate(directory, user);
      await giveTo(user, directory, server.#data);
      await run("mariadb-install-db", [
        "--no-defaults",
        ...(user ? ["--user=mysql"] : []),
        `--datadir=${server.#data}`,
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        ...SMALL,
      ]);
      await server.startAgain();
      const password = MARIADB_USER.password.replaceAll("'", "''");
      await server.sql(`create user conv@'%' identified by '${password}'; grant all on \`conv%\`.* to conv@'%'`);
      return server;
    } catch (error) {
      await server[Symbol.asyncDispose]();
      throw error;
    }
  }

  get socket(): string {
    return join(this.directory, "socket");
  }

  get certificate(): string {
    return join(this.directory, "server.crt");
  }

  get #data(): string {
    return join(this.directory, "data");
  }

  /** After `kill`, on the same port and with the same data. */
  async startAgain(): Promise<void> {
    const tls = [`--ssl-cert=${this.certificate}`, `--ssl-key=${join(this.directory, "server.key")}`];
    const where = [`--datadir=${this.#data}`, `--socket=${this.socket}`, `--port=${this.port}`, "--bind-address=127.0.0.1"];
    const args = ["--no-defaults", ...where, ...tls, ...SMALL, "--skip-name-resolve"];
    this.#server = new ServerProcess("mariadbd", args, this.directory, this.#user);
    await this.#server.ready(async () => await answers(this.port));
  }

  async kill(): Promise<void> {
    await this.#server?.stop("SIGKILL");
  }

  /** Of all its processes, for `pause` and `resume`. */
  get pids(): number[] {
    return this.#server?.pid === undefined ? [] : [this.#server.pid];
  }

  /** Runs statements as the administrator and gives what they print, with tabs. */
  async sql(statements: string, database = ""): Promise<string> {
    const login = ["--no-defaults", `--socket=${this.socket}`, "--user=root", "--batch", "--default-character-set=utf8mb4"];
    return await run("mariadb", [...login, database], { input: statements });
  }

  /** An empty database, with the DSN of `MARIADB_USER` for it. */
  async createDatabase(name: string): Promise<string> {
    await this.sql(`create database ${name}`);
    return this.dsn(name);
  }

  dsn(database: string, parameters = ""): string {
    return `${MARIADB_USER.user}:${MARIADB_USER.password}@tcp(127.0.0.1:${this.port})/${database}${parameters}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server?.stop("SIGKILL");
    await rm(this.directory, { recursive: true, force: true });
  }
}
