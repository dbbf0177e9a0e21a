const NOBODY = 65534;
/** The checkout may lie in a directory of root's own: it can be read, but nothing can be written. */
const READ_ONLY = "-all,+dac_read_search";

/** The arguments of `setpriv`, before a command's own, that run it as a user without rights. Needs root. */
export const AS_NOBODY: readonly string[] = [
  `--reuid=${NOBODY}`,
  `--regid=${NOBODY}`,
  "--clear-groups",
  `--inh-caps=${READ_ONLY}`,
  `--ambient-caps=${READ_ONLY}`,
];
