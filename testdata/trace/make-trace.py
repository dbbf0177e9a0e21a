"""Writes the traces beside it, byte by byte from docs/formats/trace.md, and shares no code with what reads them."""

import struct
import sys


def crc32c(data):
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


def trace(records, garbage):
    body = b"".join(
        struct.pack("<c3sIQq", op, bytes((garbage * (i + 1)) % 256 for _ in range(3)), layer, count, offset)
        for i, (op, layer, count, offset) in enumerate(records)
    )
    return struct.pack("<I4sQI4s", 0xC2EF1820, bytes([garbage] * 4), len(body), crc32c(body), bytes([garbage] * 4)) + body


RECORDS = [
    (b"R", 0, 4096, 0),
    (b"R", 2, 131072, 1048576),
    (b"R", 0, 512, 5242880),
    (b"W", 1, 4096, 8192),
    (b"R", 2, 131072, 1179648),
    (b"R", 255, 2097152, 68719476736),
    (b"R", 0, 4096, 0),
    (b"R", 2147483649, 65536, 12345856),
]

for name, garbage in [("clean.trace", 0), ("padding.trace", 0xA7)]:
    with open(f"{sys.argv[1]}/{name}", "wb") as file:
        file.write(trace(RECORDS, garbage))
