#!/usr/bin/env bash
# One video with curl and jq: ask, follow, download.
#   export HYVIDEO_URL=http://127.0.0.1:8000 HYVIDEO_API_KEY=...
#   examples/video.sh "a red circle moves right" [FILE]
set -euo pipefail
prompt=${1:?a prompt}
file=${2:-video.mp4}
url=${HYVIDEO_URL:-http://127.0.0.1:8000}

# The key comes from a pipe: arguments are there for every user of the machine to read.
ask() {
    curl --config <(printf 'header = "Authorization: Bearer %s"\n' "${HYVIDEO_API_KEY:-}") \
        --silent --show-error --fail-with-body "$@"
}

# One name for one wish: sent again, by --retry, it is still the same video. Each try prints its answer, so the
# id is in the last one.
wish=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
answers=$(jq --null-input --arg prompt "$prompt" '{prompt: $prompt}' | ask "$url/v1/videos" \
    --retry 5 --header "Content-Type: application/json" --header "Idempotency-Key: $wish" --data @-) ||
    { jq --raw-output '.error.message' <<<"$answers" >&2; exit 1; }
id=$(jq --raw-output '.id // empty' <<<"$answers")
echo "$id" >&2

# Each event has one line of data, the whole Video object. The stream ends with the video.
ask --no-buffer "$url/v1/videos/$id/events" |
    sed --unbuffered --quiet 's/^data: //p' |
    jq --unbuffered --raw-output '"\(.status) \(.progress) %, about \(.seconds_left // 0) s left"' >&2

video=$(ask "$url/v1/videos/$id")
if [ "$(jq --raw-output .status <<<"$video")" != completed ]; then
    jq --raw-output '"\(.error.code): \(.error.message)"' <<<"$video" >&2
    exit 1
fi
ask --output "$file" "$url/v1/videos/$id/content"
echo "$file"
