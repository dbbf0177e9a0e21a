import assert from "node:assert/strict";
import { test } from "node:test";
import { convertorInProcess, lazylayerInProcess } from "../../test/support/in-process.ts";

const SOURCE = "oci:/nonexistent-source:a"; // must not even be looked for
const TARGET = "oci:/nonexistent-target:b";
const REGISTRY_TARGET = "localhost:1/target:b";

type Row = readonly [args: readonly string[], expected: RegExp, input?: string];

async function assertRefused(run: typeof lazylayerInProcess, rows: readonly Row[]): Promise<void> {
  for (const [args, expected, input] of rows) {
    const { status, stdout, stderr } = await run(args, { input });
    assert.match(stderr, expected, args.join(" "));
    assert.deepEqual([status, stdout.toString()], [2, ""], args.join(" "));
    assert.doesNotMatch(stderr, /secret|name-alone/);
    assert.doesNotMatch(stderr, /nonexistent-source: does not exist/);
  }
}

test("lazylayer: what contradicts itself or makes no sense has status 2 and says why", async () => {
  const call = ["convert", SOURCE, TARGET];
  await assertRefused(lazylayerInProcess, [
    [["convert"], /missing required argument 'source'/],
    [["convert", SOURCE], /missing required argument 'destination'; or give --tag-suffix/],
    [[...call, "oci:more:c"], /2 destinations for one image; name one, or two formats with --to overlaybd,turbo/],
    [[...call, "--to", "erofs"], /expected overlaybd, turbo, or overlaybd,turbo/],
    [[...call, "--to", "turbo,turbo"], /expected each format once/],
    [[...call, "--to", "overlaybd,turbo"], /needs 2 destinations, in that order; found 1/],
    [[...call, TARGET, "--to", "turbo,overlaybd"], /both formats would go to oci:\/nonexistent-target:b/],
    [["convert", SOURCE, "--to", "overlaybd,turbo", "--tag-suffix=-x"], /--tag-suffix would give both images the same tag/],
    [["convert", SOURCE, TARGET, "-", "--to", "overlaybd,turbo"], /standard output takes one archive, not two images/],
    [[...call, "--leave-data"], /--leave-data is of use only with --to turbo/],
    [[...call, "--recompress", "gzip"], /--recompress is of use only with --to turbo/],
    [[...call, "--to", "turbo", "--recompress", "zstd"], /Allowed choices are gzip/],
    [[...call, "--nope"], /unknown option '--nope'/],
    [["convert", SOURCE, "http://host/repo:tag"], /no scheme/],
    [["convert", SOURCE, "oci:"], /no directory after oci:/],
    [["convert", SOURCE, "oci:/nonexistent-target"], /needs a tag/],
    [["convert", SOURCE, `${REGISTRY_TARGET}@sha256:${"0".repeat(64)}`], /needs a tag, and no digest/],
    [["convert", SOURCE, SOURCE], /are the same; name another tag or file, or let --force replace the source/],
    [["convert", "redis", "docker.io/library/redis:latest"], /^lazylayer: docker\.io\/library\/redis:latest: .* are the same/],
    [[...call, "--vsize", "1e3"], /from 1 to 16383/],
    [[...call, "--vsize", "-1"], /from 1 to 16383/],
    [[...call, "--vsize", "16384"], /from 1 to 16383/],
    [[...call, "--vsize", ""], /from 1 to 16383/],
    [[...call, "--fs", "xfs"], /Allowed choices are ext4/],
    [[...call, "--platform", "a/b/c/d"], /platform/],
    [[...call, "--concurrency-limit", "-1"], /a whole number, or 0 for no limit/],
    [[...call, "--retry", "many"], /a whole number from 0 to 100/],
    [[...call, "--timeout", "0"], /a whole number of seconds from 1 to 86400/],
    [[...call, "--progress", "tty"], /Allowed choices are auto, plain, json, none/],
    [[...call, "--output", "yaml"], /Allowed choices are text, json/],
    [[...call, "--quiet", "--progress", "none"], /--quiet and --progress none contradict each other; give one of them/],
    [[...call, "--tag-suffix=-obd"], /oci:\/nonexistent-target:b has a tag already/],
    [["convert", `localhost/a@sha256:${"0".repeat(64)}`, "localhost/b", "--tag-suffix=-obd"], /has no tag that it could be added to/],
    [["convert", SOURCE, "--tag-suffix=/x"], /tag "a\/x"/],
    [["convert", SOURCE, "--tag-suffix="], /are the same/],
    [["convert", "oci-archive:a.tar:x", "--tag-suffix=-obd"], /oci-archive:a\.tar:x is an archive/],
    [["convert", "oci-archive:a.tar:x", "docker-archive:./a.tar:app:y"], /are the same; name another tag or file/],
    [["convert", SOURCE, "-", "--output", "json"], /would both go to standard output/],
    [["convert", "-", TARGET, "-u", "me", "--password-stdin"], /standard input cannot be an image and the password/],
    [[...call, "--db-type", "oracle"], /Allowed choices are none, sqlite, mysql, postgres/],
    [[...call, "--db-type", "sqlite"], /--db-type is of no use here: only what goes into a registry is remembered/],
    [["convert", SOURCE, REGISTRY_TARGET, "--db-type", "mysql"], /--db-type mysql needs --db-str/],
    [["convert", SOURCE, REGISTRY_TARGET, "--db-type", "postgres"], /--db-type postgres needs --db-str/],
    [["convert", SOURCE, REGISTRY_TARGET, "--db-type", "none", "--db-str", "secret"], /contradict each other/],
    [["convert", SOURCE, REGISTRY_TARGET, "--db-type", "mysql", "--db-str", "u:secret"], /no slash/],
    [[...call, "--password-stdin"], /--password-stdin needs --username/],
    [[...call, "-u", "name:secret", "--password-stdin"], /with a name alone/],
    [[...call, "-u", "name", "--password-stdin"], /standard input is empty/, "\n"],
    [[...call, "-u", "name", "--password-stdin"], /longer than 65536 bytes/, "x".repeat(70_000)],
    [[...call, "-u", "name-alone"], /expected USER:PASSWORD/],
    [[...call, "--client-cert", "one"], /expected CERT:KEY/],
    [["verify", SOURCE], /missing required argument 'converted'/],
    [["completion", "powershell"], /Allowed choices are bash, zsh, fish/],
    [["db", "ls", "--db-type", "mysql"], /needs --db-str/],
  ]);
});

test("convertor: what contradicts itself or makes no sense has status 2 and says why", async () => {
  const place = ["-r", "oci:/nonexistent-source/x"];
  const call = ["-r", "localhost:1/app", "-i", "v1", "-o", "v1_obd"];
  await assertRefused(convertorInProcess, [
    [[], /required option '-r, --repository <repository>' not specified/],
    [[...call, "argument"], /too many arguments/],
    [["-r", "localhost:1/app", "-o", "x"], /one of --input-tag \(-i\) and --input-digest \(-g\) is required/],
    [["-r", "localhost:1/app", "-i", "", "-o", "x"], /one of --input-tag/],
    [["-r", "localhost:1/app", "-i", "v1"], /a tag for the result is required/],
    [[...call, "-g", `sha256:${"0".repeat(64)}`], /name the image twice/],
    [["-r", "localhost:1/app", "-g", "sha256:0", "-o", "x"], /is no digest/],
    [[...call, "--overlaybd", "other"], /-o v1_obd and --overlaybd other name two results/],
    [["-r", "localhost:1/app", "-i", "v1", "-o", "v1"], /-o v1 is the tag of the source, .* or say --force/],
    [[...place, "-i", "v1", "--overlaybd", "v1"], /is the tag of the source/],
    [[...call, "--turboOCI", "t", "--fastoci", "other"], /--turboOCI t and --fastoci other name two results/],
    [[...call, "--turboOCI", "v1_obd"], /-o and --turboOCI both say v1_obd; name two tags/],
    [[...call, "--recompress", "gzip"], /--recompress is of use only with --turboOCI/],
    [["-r", "localhost:1/app", "-i", "v1", "--fastoci=v1"], /--fastoci v1 is the tag of the source/],
    [[...call, "--fstype", "xfs"], /--fstype xfs is not supported, only ext4 and erofs are/],
    [[...call, "--fstype", "erofs", "--mkfs=false"], /--fstype erofs needs a filesystem of its own/],
    [[...call, "--vsize", "0"], /from 1 to 16383/],
    [[...call, "--vsize="], /from 1 to 16383/],
    [[...call, "--mkfs=maybe"], /expected true or false/],
    [[...call, "--dry-run=2"], /expected true or false/],
    [[...call, "--concurrency-limit", "-1"], /or 0 for no limit/],
    [[...call, "-u", "name-alone"], /expected USER:PASSWORD/],
    [[...call, "-u", "name:secret", "--password-stdin"], /with a name alone/],
    [[...call, "--client-cert", "one"], /expected CERT:KEY/],
    [["-r", "localhost:1/app:v1", "-i", "v1", "-o", "x"], /without tag or digest/],
    [["-r", "https://localhost:1/app", "-i", "v1", "-o", "x"], /without https:\/\//],
    [["-r", "localhost:1/app", "-i", "v1", "-o", "ne/ver"], /tag "ne\/ver"/],
    [[...call, "--db-type", "redis"], /Allowed choices are none, sqlite, mysql, postgres/],
    [[...call, "--db-type", "mysql"], /--db-type mysql needs --db-str/],
    [[...call, "--db-str", "u:secret@/d"], /--db-str without --db-type/],
    [[...call, "--db-type", "mysql", "--db-str", "u:secret"], /no slash/],
    [[...call, "--db-type", "postgres", "--db-str", "secret"], /--db-str/],
    [[...call, "--quiet", "--verbose"], /--quiet and --verbose contradict each other/],
    [[...call, "--quiet", "--progress", "auto"], /--quiet and --progress auto contradict each other/],
    [[...call, "--vsize", "16", "--mkfs=false"], /--vsize 16 and --mkfs=false contradict each other: the base layer is of 64 GB/],
    [[...call, "--dry-run", "--no-upload"], /--no-upload is of no use with --dry-run/],
    [[...call, "--dry-run", "--reserve"], /--reserve is of no use with --dry-run/],
    [[...call, "--dry-run", "--dump-manifest"], /--dump-manifest is of no use with --dry-run/],
    [[...call, "--platform", "linux"], /expected os\/arch/],
  ]);
});

test("a source that is not there has status 1", async () => {
  const { status, stderr } = await lazylayerInProcess(["convert", SOURCE, TARGET]);
  assert.match(stderr, /nonexistent-source: does not exist/);
  assert.equal(status, 1);
});

test("help ends with examples, for every command", async () => {
  for (const args of [["convert"], ["verify"], ["ls"], ["cat"], ["mount"], ["umount"], ["db"], ["completion"], []]) {
    const { status, stdout } = await lazylayerInProcess([...args, "--help"]);
    assert.equal(status, 0);
    assert.match(stdout.toString(), /\nExamples:\n {2}(.*\n)*.*lazylayer /, args.join(" "));
  }
  assert.match((await convertorInProcess(["-h"])).stdout.toString(), /\nExamples:\n {2}convertor -r /);
});
