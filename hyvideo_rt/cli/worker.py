"""`python -m hyvideo_rt.cli.worker FLAGS`: the process of one device. Only the server starts it.

FLAGS are those of `serve`, as JSON. What the process prints goes to standard error: nothing that a library
writes can reach the pipe to the server.
"""

import argparse
import json
import os
import sys
import traceback


def main() -> int:
    wire_out = os.dup(1)
    os.dup2(2, 1)
    # After standard output has moved: these import libraries.
    from hyvideo_rt.cli.load import load_for_server
    from hyvideo_rt.errors import HyVideoError
    from hyvideo_rt.server.protocol import CANNOT_LOAD
    from hyvideo_rt.server.worker import Wire, run

    args = argparse.Namespace(**json.loads(sys.argv[1]))
    try:
        return run(lambda: load_for_server(args), Wire(sys.stdin.buffer, wire_out))
    except HyVideoError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return CANNOT_LOAD


if __name__ == "__main__":
    status = 1
    try:
        status = main()
    except Exception:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status)  # at once: a thread waits for the server's next line, and an orderly exit trips on it
