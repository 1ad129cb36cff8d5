"""A worker that makes no video but speaks the protocol; the prompt says how it misbehaves.

"crash", "fork" (a child that stays), "hang", "freeze" (no heartbeat), "garble", "fail CODE", "ignore cancel",
"steps N SECONDS"; with "once" only at the first attempt. Argument: a folder in which each start
leaves a file, and "dies" or "cannot load" to end before it is ready.
"""

import json
import os
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


def send(message: protocol.Message) -> None:
    os.write(1, protocol.encode(message))


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
    words = str(request.request["prompt"]).split()
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
    Path(request.path).write_bytes(json.dumps(request.request).encode())
    (folder / f"made-{request.id}-{time.time_ns()}").touch()
    return Done(request.id, {"encode": 0.01, "denoise": 0.02, "decode": 0.01, "write": 0.01}, 0)


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
