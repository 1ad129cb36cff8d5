"""Starts the server: `python serve.py --model tiny` is `hyvideo-rt serve --model tiny`."""

import sys

from hyvideo_rt.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
