const UNITS = ["kB", "MB", "GB", "TB"];

/** A size for people: `812 B`, `1.3 kB`, `45.6 MB`. */
export function byteText(bytes: number): string {
  if (bytes < 1000) return `${Math.round(bytes)} B`;
  let value = bytes;
  let unit = "";
  for (const next of UNITS) {
    if (value < 999.95) break;
    value /= 1000;
    unit = next;
  }
  return `${value.toFixed(1)} ${unit}`;
}

/** Whole megabytes, such as `1,343`. */
export function megabyteCount(bytes: number): string {
  return Math.round(bytes / 1e6).toLocaleString("en-US");
}

/** A duration for people: `6 s`, `2 min 5 s`, `3 h 20 min`. */
export function durationText(seconds: number): string {
  const whole = Math.max(1, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}
