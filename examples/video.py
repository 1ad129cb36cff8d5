"""One video with the `openai` package (`pip install openai`): ask, poll, download.

export HYVIDEO_URL=http://127.0.0.1:8000 HYVIDEO_API_KEY=...
python examples/video.py "a red circle moves right" [FILE]
"""

import os
import sys
import time
import uuid

from openai import OpenAI


def main(prompt: str, file: str = "video.mp4") -> int:
    client = OpenAI(
        base_url=os.environ.get("HYVIDEO_URL", "http://127.0.0.1:8000") + "/v1",
        api_key=os.environ.get("HYVIDEO_API_KEY", "none"),
        max_retries=5,  # also where the queue is full, after Retry-After if that is a minute or less
    )
    # One name for one wish: sent again, by a retry, it is still the same video. What the package does not
    # know of goes into extra_body: seed, steps, preset, num_frames, guidance_scale, negative_prompt and more.
    video = client.videos.create(
        prompt=prompt, extra_headers={"Idempotency-Key": uuid.uuid4().hex}, extra_body={"seed": 42}
    )
    while video.status in ("queued", "in_progress"):
        print(f"{video.status} {video.progress} %", file=sys.stderr)
        time.sleep(1)
        video = client.videos.retrieve(video.id)
    if video.error:
        print(f"{video.error.code}: {video.error.message}", file=sys.stderr)
        return 1
    client.videos.download_content(video.id).write_to_file(file)
    print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
