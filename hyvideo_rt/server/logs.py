"""One JSON object a line on standard error. Prompts and keys are never handed to a logger."""

import json
import logging
import time
import traceback
from typing import Any

from hyvideo_rt.server.requests import REQUEST_ID

_PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonLines(logging.Formatter):
    """Time, level, where, what; then whatever was given as `extra`, and the request it belongs to."""

    def format(self, record: logging.LogRecord) -> str:
        content: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := REQUEST_ID.get():
            content["request"] = request_id
        content |= {key: value for key, value in vars(record).items() if key not in _PLAIN}
        if record.exc_info:
            content["error"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(content, default=str)


def log_as_json(level: int = logging.INFO) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
