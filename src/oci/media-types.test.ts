import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as types from "./media-types.ts";

describe("media types", () => {
  const foreign = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
  ];
  const layers = [types.OCI_LAYER_TAR, types.OCI_LAYER_GZIP, types.OCI_LAYER_ZSTD, types.DOCKER_LAYER_TAR, types.DOCKER_LAYER_GZIP];

  it("tell layers that hold a tar stream from everything else", () => {
    for (const type of [...layers, types.DOCKER_LAYER_ZSTD, ...foreign]) assert.ok(types.isTarLayer(type), type);
    for (const type of ["application/vnd.in-toto+json", types.OCI_CONFIG, types.DOCKER_CONFIG, ""])
      assert.ok(!types.isTarLayer(type), type);
    assert.deepEqual([...layers, ...foreign].filter(types.isForeignLayer), foreign);
  });

  it("tell what a document is, and whose", () => {
    assert.deepEqual([types.OCI_INDEX, types.DOCKER_INDEX].map(types.documentKind), ["index", "index"]);
    assert.deepEqual([types.OCI_MANIFEST, types.DOCKER_MANIFEST].map(types.documentKind), ["manifest", "manifest"]);
    assert.equal(types.documentKind(types.OCI_CONFIG), undefined);
    assert.deepEqual([types.DOCKER_LAYER_TAR, types.OCI_LAYER_TAR, foreign[1]].map(types.familyOf), ["docker", "oci", "docker"]);
  });
});
