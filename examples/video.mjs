// One video with fetch, Node 18 or newer, no package: ask, follow, download.
//   export HYVIDEO_URL=http://127.0.0.1:8000 HYVIDEO_API_KEY=...
//   node examples/video.mjs "a red circle moves right" [FILE]
import { randomUUID } from "node:crypto";
import { createWriteStream } from "node:fs";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

const url = process.env.HYVIDEO_URL ?? "http://127.0.0.1:8000";
const [prompt, file = "video.mp4"] = process.argv.slice(2);

async function ask(path, options = {}) {
  const headers = { Authorization: `Bearer ${process.env.HYVIDEO_API_KEY}`, ...options.headers };
  const answer = await fetch(url + path, { ...options, headers });
  if (answer.ok) return answer;
  const { error } = await answer.json();
  throw new Error(`${answer.status} ${error.code}: ${error.message}`);
}

/** The `data` of server-sent events, parsed; comments and names of events are skipped. */
async function* events(path) {
  let rest = "";
  for await (const text of (await ask(path)).body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) yield JSON.parse(line.slice(6));
  }
}

const created = await ask("/v1/videos", {
  method: "POST",
  // One name for one wish: whoever sends it again gets the same video.
  headers: { "Content-Type": "application/json", "Idempotency-Key": randomUUID() },
  body: JSON.stringify({ prompt }),
});
let video = await created.json();
for await (video of events(`/v1/videos/${video.id}/events`)) {
  console.error(`${video.status} ${video.progress} %, about ${video.seconds_left ?? 0} s left`);
}
if (video.status !== "completed") throw new Error(video.error?.message ?? "the stream ended before the video");

const content = await ask(`/v1/videos/${video.id}/content`);
await pipeline(Readable.fromWeb(content.body), createWriteStream(file));
console.log(file);
