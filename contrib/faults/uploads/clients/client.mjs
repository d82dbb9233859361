// Like client.py, but with node:http, or with fetch if that is the first argument. Both
// read the answer while they send. fetch sends a slow body in chunks, without a
// Content-Length.
import http from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const [api, url] = process.argv.slice(2);
const [size, first, chunk, ms, n] = process.argv.slice(4).map(Number);

async function* pieces() {
  let sent = Math.min(first, size);
  if (sent > 0) yield Buffer.alloc(sent);
  const start = performance.now();
  for (let chunks = 1; sent < size; chunks++) {
    await sleep(Math.max(0, start + chunks * ms - performance.now()));
    const piece = Buffer.alloc(Math.min(chunk, size - sent));
    sent += piece.length;
    yield piece;
  }
}

async function byFetch() {
  const body = chunk ? pieces() : Buffer.alloc(size);
  const response = await fetch(url, { method: "POST", body, duplex: "half" });
  return { status: response.status, body: await response.text() };
}

function byHTTP() {
  return new Promise((resolve, reject) => {
    let answered = false;
    const request = http.request(url, { method: "POST", agent: false, headers: { "Content-Length": size } }, async (response) => {
      answered = true;
      try {
        let body = "";
        for await (const piece of response) body += piece;
        resolve({ status: response.statusCode, body });
      } catch (e) {
        reject(e);
      }
    });
    request.on("error", reject);
    if (!chunk) return request.end(Buffer.alloc(size));
    (async () => {
      for await (const piece of pieces()) {
        if (answered || request.destroyed) return;
        request.write(piece);
      }
      request.end();
    })();
  });
}

for (let i = 0; i < n; i++) {
  let answer;
  try {
    answer = await (api === "fetch" ? byFetch() : byHTTP());
  } catch (e) {
    answer = { error: String(e.cause ?? e) };
  }
  console.log(JSON.stringify(answer));
}
process.exit();
