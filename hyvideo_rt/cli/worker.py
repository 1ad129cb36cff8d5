"""`python -m hyvideo_rt.cli.worker FLAGS`: the process of one device. Only the server starts it.

FLAGS are those of `serve`, as JSON. What the process prints goes to standard error: nothing that a library
writes can reach the pipe to the server.
"""

import argparse
import json
import os
import sys


def main() -> int:
    wire_out = os.dup(1)
    os.dup2(2, 1)
    from hyvideo_rt.cli.load import load_for_server  # after standard output has moved: these import libraries
    from hyvideo_rt.server.worker import Wire, run

    args = argparse.Namespace(**json.loads(sys.argv[1]))
    return run(lambda: load_for_server(args), Wire(sys.stdin.buffer, wire_out))


if __name__ == "__main__":
    sys.exit(main())
