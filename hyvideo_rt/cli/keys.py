"""API keys from where their owner has put them; never from the command line, which others can read."""

from pathlib import Path

from hyvideo_rt.errors import InvalidRequest


def api_keys(variable: str, file: str | None) -> tuple[str, ...]:
    """From the environment and from a file that others cannot read."""
    keys = [variable] if variable else []
    if file:
        path = Path(file)
        try:
            if path.stat().st_mode & 0o027:  # its group may read: as secrets of containers and services are
                raise InvalidRequest(f"got {path}, which others can read or change\n  chmod 600 {path}")
            lines = [line.strip() for line in path.read_text().splitlines()]
        except OSError as error:
            raise InvalidRequest(
                f"cannot read API keys from {path}: {error.strerror}\n  give a file with one key a line"
            ) from error
        keys += [line for line in lines if line and not line.startswith("#")]
        if not keys:
            raise InvalidRequest(f"got no key in {path}; expected one a line")
    return tuple(keys)
