"""How long a worker may take for its next step, tile or message before it counts as hung."""

from collections.abc import Mapping

from hyvideo_rt.server.protocol import Progress
from hyvideo_rt.server.settings import Limits

UNKNOWN_S = 0.0  # a stage without an estimate, such as loading engines: the floor applies


class Watchdog:
    """Fed with every message; times are those of one monotonic clock, in seconds.

    stages: estimated seconds of each stage; floor_s: what any unit of work may take.
    """

    def __init__(self, stages: Mapping[str, float], limits: Limits, floor_s: float, now: float) -> None:
        self._stages, self._limits, self._floor_s = stages, limits, floor_s
        self._allowed_s, self._moved, self._heard = floor_s, now, now

    def heard(self, now: float) -> None:
        self._heard = now

    def moved(self, progress: Progress, now: float) -> None:
        unit_s = self._stages.get(progress.stage, UNKNOWN_S) / max(progress.total, 1)
        self._allowed_s = max(self._floor_s, self._limits.watchdog_factor * unit_s)
        self._heard = self._moved = now

    def complaint(self, now: float) -> str | None:
        """Why the worker counts as hung, if it does."""
        if now - self._heard > self._limits.heartbeat_s:
            return f"no sign of life for {now - self._heard:.0f} s"
        if now - self._moved > self._allowed_s:
            return f"no progress for {now - self._moved:.0f} s, {self._allowed_s:.0f} s were allowed"
        return None
