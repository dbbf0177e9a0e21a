import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execute, run } from "./command.ts";
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

const PACKAGE = "postgresql";
const PROGRAMS = "/usr/lib/postgresql";

export const POSTGRES_USER = { user: "conv", password: "p@ss:w/rd'\"(1) \\x" };

/** A PostgreSQL server of its own, on loopback and a socket, with nothing in it but `POSTGRES_USER`. */
export class Postgres implements AsyncDisposable {
  readonly port: number;
  readonly directory: string;
  readonly #programs: string;
  readonly #user: ServerUser | undefined;
  #server: ServerProcess | undefined;

  private constructor(port: number, directory: string, programs: string, user: ServerUser | undefined) {
    this.port = port;
    this.directory = directory;
    this.#programs = programs;
    this.#user = user;
  }

  static async start(): Promise<Postgres> {
    const programs = await findPrograms();
    await requireProgram("psql", PACKAGE);
    const user = await serverUser("postgres", PACKAGE);
    const directory = await mkdtemp(join(tmpdir(), "lazylayer-postgres-"));
    const server = new Postgres(await unusedPort(), directory, programs, user);
    try {
      await mkdir(server.#data, { mode: 0o700 });
      await makeCertificate(directory, user);
      await giveTo(user, directory, server.#data);
      const authentication = ["--auth-local=trust", "--auth-host=scram-sha-256"];
      const initialise = [
        join(programs, "initdb"),
        "-D",
        server.#data,
        "-U",
        "admin",
        ...authentication,
        "--no-sync",
        "--locale=C",
        "-E",
        "UTF8",
      ];
      const [program, ...args] = user ? ["runuser", "-u", "postgres", "--", ...initialise] : initialise;
      await run(program, args, { cwd: directory });
      await server.startAgain();
      await server.sql(`create role conv login password '${POSTGRES_USER.password.replaceAll("'", "''")}'`);
      return server;
    } catch (error) {
      await server[Symbol.asyncDispose]();
      throw error;
    }
  }

  get certificate(): string {
    return join(this.directory, "server.crt");
  }

  get #data(): string {
    return join(this.directory, "data");
  }

  /** After `kill`, on the same port and with the same data. */
  async startAgain(): Promise<void> {
    const settings = {
      listen_addresses: "127.0.0.1",
      unix_socket_directories: this.directory,
      ssl: "on",
      ssl_cert_file: this.certificate,
      ssl_key_file: join(this.directory, "server.key"),
      fsync: "off",
      shared_buffers: "8MB",
    };
    const args = [
      "-D",
      this.#data,
      "-p",
      String(this.port),
      ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]),
    ];
    this.#server = new ServerProcess(join(this.#programs, "postgres"), args, this.directory, this.#user);
    const isReady = async (): Promise<boolean> => (await answers(this.port)) && (await this.#psql("select 1", "postgres")).status === 0;
    await this.#server.ready(isReady);
  }

  /** Of all its processes, for `pause` and `resume`. */
  async pids(): Promise<number[]> {
    const main = String(this.#server?.pid);
    const children = await run("ps", ["-o", "pid=", "--ppid", main]);
    return [main, ...children.trim().split(/\s+/)].map(Number);
  }

  /** All of its processes end at once, in the middle of what they do. */
  async kill(): Promise<void> {
    await this.#server?.stop("SIGQUIT");
  }

  /** Runs statements as the administrator and gives what they print, without headings. */
  async sql(statements: string, database = "postgres"): Promise<string> {
    const { status, stdout, stderr } = await this.#psql(statements, database);
    if (status !== 0) throw new Error(`psql: exit status ${status}: ${stderr}`);
    return stdout.toString();
  }

  async #psql(statements: string, database: string) {
    const login = ["-h", this.directory, "-p", String(this.port), "-U", "admin", "-d", database];
    return await execute("psql", [...login, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"], { input: statements });
  }

  /** An empty database, with the address of `POSTGRES_USER` for it. */
  async createDatabase(name: string): Promise<string> {
    await this.sql(`create database ${name} owner conv`);
    return this.address(name);
  }

  address(database: string, parameters = ""): string {
    const password = encodeURIComponent(POSTGRES_USER.password);
    return `postgres://${POSTGRES_USER.user}:${password}@127.0.0.1:${this.port}/${database}${parameters}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server?.stop("SIGQUIT");
    await rm(this.directory, { recursive: true, force: true });
  }
}

/** Debian keeps the server's programs out of PATH, in a directory of each version. */
async function findPrograms(): Promise<string> {
  const versions = await readdir(PROGRAMS).catch(() => []);
  const newest = versions.filter((name) => /^\d+$/.test(name)).toSorted((a, b) => Number(b) - Number(a))[0];
  if (newest === undefined) throw new Error(`postgres is missing, there is nothing in ${PROGRAMS}: install Debian's ${PACKAGE}`);
  const programs = join(PROGRAMS, newest, "bin");
  for (const program of ["initdb", "postgres"]) await requireProgram(join(programs, program), PACKAGE);
  return programs;
}
