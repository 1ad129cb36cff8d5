"""The flags of `hyvideo-rt serve`. Those of model, device and computing are those of `generate`."""

import argparse

from hyvideo_rt.cli.flags import add_compute, add_model


def add_serve(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Answers requests for videos over HTTP, in the format of OpenAI's Videos API, one process per GPU. "
        "Jobs are kept on disk: those that a crash interrupts are made again. A key is read from "
        "HYVIDEO_API_KEY or --api-key-file; without one, only this machine may ask."
    )
    where = parser.add_argument_group("where")
    where.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (127.0.0.1)")
    where.add_argument("--port", type=int, default=8000, metavar="N", help="0 takes any that is free (8000)")
    where.add_argument("--api-key-file", metavar="FILE", help="one key a line; # starts a comment")
    where.add_argument("--ui", action="store_true", help="answer / with a web page, made by another process")
    where.add_argument(
        "--data-dir", default="./hyvideo-data", metavar="FOLDER", help="of jobs and videos (./hyvideo-data)"
    )
    where.add_argument(
        "--warm",
        metavar="SIZES",
        help="presets or sizes such as 720x1280x129, with commas: ready when the server is (the model's own)",
    )
    limits = parser.add_argument_group("limits")
    for name, kind, unit, default, meaning in LIMITS:
        limits.add_argument(
            f"--{name}", type=kind, default=default, metavar=unit, help=f"{meaning} ({default})"
        )
    add_model(parser)
    add_compute(parser)


LIMITS: tuple[tuple[str, type, str, float, str], ...] = (
    ("max-queue-jobs", int, "N", 100, "videos that may wait; more are answered with 429"),
    ("max-queue-seconds", float, "S", 14400, "estimated device-seconds that may wait"),
    ("max-job-seconds", float, "S", 7200, "estimated seconds that one video may take"),
    (
        "max-overtake-seconds",
        float,
        "S",
        30,
        "a job waits at most so long for others whose engines are loaded",
    ),
    (
        "watchdog-seconds",
        float,
        "S",
        120,
        "a step or tile may always take so long, and five times its estimate",
    ),
    ("start-timeout", float, "S", 1800, "for loading, and for each warm-up"),
    ("drain-timeout", float, "S", 600, "after SIGTERM, for videos that are being made"),
    ("sync-timeout", float, "S", 3600, "for answers of /v1/videos/sync"),
    ("retention-hours", float, "H", 168, "finished videos are kept so long"),
    ("min-free-gib", float, "GIB", 1, "with less room on disk nothing is accepted"),
)
