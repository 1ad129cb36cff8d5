"""A worker that makes no video but speaks the protocol; the prompt says how it misbehaves.

"crash", "fork" (a child that stays), "hang", "freeze" (no heartbeat), "garble", "fail CODE", "ignore cancel",
"steps N SECONDS"; with "once" only at the first attempt. Arguments: a folder in which each start leaves a
file; "dies" or "cannot load" to end before it is ready; "film=FILE", an MP4 that it writes as every video;
"kill=POINT" to be killed at a point such as "before:done:1", the first time that one comes there, or
"kills=POINT" each time; "deaf" to take every prompt for a prompt (a generator of examples finds these words).
"""

import collections
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from hyvideo_rt.server import protocol
from hyvideo_rt.server.protocol import Cancel, Done, Failed, Generate, Heartbeat, Progress, Ready

CAPABILITIES = {
    "device": "cpu",
    "backend": "eager",
    "built": ["64x64x17"],
    "eager": True,
    "offload": False,
    "budget_bytes": 1 << 30,
    "precision": {
        **dict.fromkeys(("dit", "vae", "llm", "clip"), "float32"),
        **{"fp8": False, "wide": [], "fp8_products": False},
    },
    "identity": {"model": "stub"},
}
cancelled: set[str] = set()
requests: list[Generate] = []
arrived = threading.Semaphore(0)
beating = threading.Event()
beating.set()
options = dict(word.split("=", 1) for word in sys.argv[2:] if "=" in word)
counts: collections.Counter[str] = collections.Counter()


def reach(when: str, what: str) -> None:
    """One of the points at which this process can be killed; each leaves a line in the folder."""
    counts[f"{when}:{what}"] += 1
    point, folder = f"{when}:{what}:{counts[f'{when}:{what}']}", Path(sys.argv[1])
    first = options.get("kill") == point and not (folder / "killed").exists()
    if first or options.get("kills") == point:
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    with (folder / "points").open("a") as file:
        file.write(point + "\n")


def send(message: protocol.Message) -> None:
    kind = type(message).__name__.lower()
    if isinstance(message, Heartbeat):
        os.write(1, protocol.encode(message))
        return
    reach("before", kind)
    os.write(1, protocol.encode(message))
    reach("after", kind)


def listen() -> None:
    for line in sys.stdin.buffer:
        message = protocol.decode(line)
        if isinstance(message, Cancel):
            cancelled.add(message.id)
        elif isinstance(message, Generate):
            requests.append(message)
            arrived.release()
    os._exit(0)


def beat() -> None:
    while True:
        if beating.is_set():
            send(Heartbeat())
        time.sleep(0.05)


def make(request: Generate, folder: Path) -> Done | Failed:
    words = [] if "deaf" in sys.argv else str(request.request["prompt"]).split()
    seen = folder / f"seen-{request.id}"
    if "once" in words and seen.exists():
        words = []
    seen.touch()
    if "fork" in words and os.fork() == 0:
        time.sleep(60)  # holding the pipes of its parent
        os._exit(0)
    if "crash" in words:
        os._exit(9)
    if "garble" in words:
        os.write(1, b"not a message\n")
    if "freeze" in words:
        beating.clear()
    if {"hang", "freeze", "garble"} & set(words):
        time.sleep(60)
    if "fail" in words:
        return Failed(request.id, words[words.index("fail") + 1], "as the prompt has it")
    steps, pause = 2, 0.0
    if "steps" in words:
        at = words.index("steps")
        steps, pause = int(words[at + 1]), float(words[at + 2])
    send(Progress(request.id, "denoise", 0, steps))
    for step in range(steps):
        time.sleep(pause)
        if request.id in cancelled and "ignore" not in words:
            return Failed(request.id, "cancelled", "asked to")
        send(Progress(request.id, "denoise", step + 1, steps))
    write(Path(request.path), video(request))
    (folder / f"made-{request.id}-{time.time_ns()}").touch()
    return Done(request.id, {"encode": 0.01, "denoise": 0.02, "decode": 0.01, "write": 0.01}, 0)


def video(request: Generate) -> bytes:
    """The film, if there is one, with a box at its end that players skip: no two videos are equal."""
    if "film" not in options:
        return json.dumps(request.request).encode()
    name = f"{request.id} {os.getpid()}".encode()
    return Path(options["film"]).read_bytes() + (8 + len(name)).to_bytes(4, "big") + b"free" + name


def write(path: Path, content: bytes) -> None:
    """In two halves."""
    reach("before", "write")
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])
        file.flush()
        reach("amid", "write")
        file.write(content[len(content) // 2 :])
    reach("after", "write")


def main() -> None:
    folder = Path(sys.argv[1])
    (folder / f"start-{os.getpid()}").touch()
    if "dies" in sys.argv:
        sys.exit(3)
    if "cannot load" in sys.argv:
        sys.exit(protocol.CANNOT_LOAD)
    for target in (listen, beat):
        threading.Thread(target=target, daemon=True).start()
    send(Ready(CAPABILITIES))
    while True:
        arrived.acquire()
        request = requests.pop(0)
        send(make(request, folder))


if __name__ == "__main__":
    main()
