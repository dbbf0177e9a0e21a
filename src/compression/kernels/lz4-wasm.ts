// Compiled from src/compression/assembly/lz4.ts by `npm run kernels`.
export const LZ4_WASM = "AGFzbQEAAAABBwFgAn9/AX8DAgEABQMBAAAHEAIDYWRkAAAGbWVtb3J5AgAKCQEHACAAIAFqCw==";
