// Asking the API: answers as JSON, problems as errors with words, the key from this tab's storage.

const KEY = "kasparro-key";

/** What the service said went wrong, in words; `status` is 0 when it could not be reached. */
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export const hasKey = () => Boolean(sessionStorage.getItem(KEY));

export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** The answer to GET `path`, relative to this page, with `query`; throws `Problem`. `accept` are more statuses to take. */
export async function ask(path, query = {}, accept = []) {
  const asked = new URLSearchParams(query).toString();
  const answer = await send(asked ? `${path}?${asked}` : path);
  if (!answer.ok && !accept.includes(answer.status)) throw await problemOf(answer);
  return answer.json();
}

/** The bytes at `path`. */
export async function bytes(path) {
  const answer = await send(path);
  if (!answer.ok) throw await problemOf(answer);
  return answer.blob();
}

async function send(path) {
  const key = sessionStorage.getItem(KEY);
  try {
    return await fetch(path, { headers: key ? { "X-API-Key": key } : {}, credentials: "omit" });
  } catch {
    throw new Problem(0, "The service cannot be reached. Is it running? `kasparro status` tells.");
  }
}

async function problemOf(answer) {
  const told = await answer.json().catch(() => ({}));
  return new Problem(answer.status, told.detail ?? `The service answered ${answer.status}.`);
}
