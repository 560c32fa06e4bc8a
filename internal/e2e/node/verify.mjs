// Verifies tokens with npm jose as an ordinary resource server does.
//
// Arguments: URL of the set, issuer, milliseconds to keep a set, number of
// verifiers. Standard input has one line of JSON a token, {id, token, exp};
// standard output answers each with {id, ok, late, error}. Late: the token had
// expired by the time its turn came, which says nothing.
import { createInterface } from "node:readline";
import { createRemoteJWKSet, jwtVerify } from "jose";

const [url, issuer, keep, count] = process.argv.slice(2);

// With a cool-down as long as this, an unknown kid is not rescued by fetching
// the set again.
const options = { cacheMaxAge: Number(keep), cooldownDuration: 3600_000 };
const verifiers = Array.from({ length: Number(count) }, () => ({
  born: Date.now(),
  keys: createRemoteJWKSet(new URL(url), options),
}));

// Verifiers wake up one after the other, so that their sets differ in age.
const awake = (i) => Date.now() - verifiers[i].born >= (i * Number(keep)) / verifiers.length;

async function verify({ id, token, exp }) {
  for (const [i, v] of verifiers.entries()) {
    if (!awake(i)) continue;
    const now = Date.now();
    if (now >= exp * 1000) return { id, late: true };
    try {
      await jwtVerify(token, v.keys, { issuer, audience: "api", clockTolerance: 0, currentDate: new Date(now) });
    } catch (error) {
      if (Date.now() >= (exp + 1) * 1000) return { id, late: true };
      return { id, error: `${error.code}: ${error.message} (verifier ${i}, exp ${exp}, now ${now / 1000})` };
    }
  }
  return { id, ok: true };
}

let pending = Promise.resolve();
for await (const line of createInterface({ input: process.stdin })) {
  pending = pending.then(() => verify(JSON.parse(line))).then((answer) => console.log(JSON.stringify(answer)));
}
await pending;
