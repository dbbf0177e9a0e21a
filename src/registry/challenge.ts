/** One offer of a `WWW-Authenticate` header. Scheme and parameter names are lower case. */
export interface Challenge {
  readonly scheme: string;
  readonly parameters: ReadonlyMap<string, string>;
}

const MAX_HEADER_LENGTH = 16 << 10;
const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const PARAMETER = /([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([!#$%&'*+.^_`|~0-9A-Za-z:/?@-]+))/y;
const SEPARATOR = /[ \t]*,?[ \t,]*/y;

/** Parses `Scheme name=value, name="value", Other …`; whatever follows something malformed is ignored. */
export function parseChallenges(header: string | undefined): Challenge[] {
  const text = (header ?? "").slice(0, MAX_HEADER_LENGTH);
  const challenges: { scheme: string; parameters: Map<string, string> }[] = [];
  let at = skip(SEPARATOR, text, 0);
  while (at < text.length) {
    const parameter = matchAt(PARAMETER, text, at);
    const token = parameter ? undefined : matchAt(TOKEN, text, at);
    if (parameter) {
      // The first of two equal names counts: a later one cannot redirect what an earlier one said.
      const parameters = challenges.at(-1)?.parameters;
      const name = parameter[1].toLowerCase();
      if (parameters && !parameters.has(name)) parameters.set(name, parameter[3] ?? parameter[2].replace(/\\(.)/g, "$1"));
    } else if (token) {
      challenges.push({ scheme: token[0].toLowerCase(), parameters: new Map() });
    } else {
      break;
    }
    at = skip(SEPARATOR, text, at + (parameter ?? token)![0].length);
  }
  return challenges;
}

function matchAt(pattern: RegExp, text: string, at: number): RegExpExecArray | null {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

function skip(pattern: RegExp, text: string, at: number): number {
  return at + (matchAt(pattern, text, at)?.[0].length ?? 0);
}
