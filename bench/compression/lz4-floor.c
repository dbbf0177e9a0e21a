/*
 * lz4-floor FILE BYTES BLOCK_SIZE: liblz4 on the blocks of a file's first bytes, for lz4-bench.ts to be measured beside.
 *
 * Each line of standard input, "compress" or "decompress", runs over all of them once; the answer is the thread's CPU time
 * in seconds.
 */
#include <lz4.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double cpu_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

int main(int argc, char **argv) {
  FILE *file = argc == 4 ? fopen(argv[1], "rb") : NULL;
  if (!file) return 2;
  long bytes = atol(argv[2]);
  int block_bytes = atoi(argv[3]);
  long blocks = bytes / block_bytes; /* whole ones */
  int bound = LZ4_compressBound(block_bytes);
  char *plain = malloc(bytes), *stored = calloc(blocks, bound), *decoded = calloc(blocks, block_bytes);
  int *sizes = calloc(blocks, sizeof *sizes);
  if (!plain || !stored || !decoded || !sizes || fread(plain, 1, bytes, file) != (size_t)bytes) return 2;

  char line[32];
  while (fgets(line, sizeof line, stdin)) {
    double start = cpu_seconds();
    char *at = stored;
    for (long block = 0; block < blocks; block++) {
      if (line[0] == 'c') sizes[block] = LZ4_compress_default(plain + block * block_bytes, at, block_bytes, bound);
      else if (LZ4_decompress_safe(at, decoded + block * block_bytes, sizes[block], block_bytes) != block_bytes) return 1;
      at += sizes[block];
    }
    printf("%.6f\n", cpu_seconds() - start);
    fflush(stdout);
  }
  return 0;
}
