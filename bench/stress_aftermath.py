"""What is left of a server after a stress: it is stopped, started again and asked for everything it has."""

from collections.abc import Sequence
from typing import Any

from hyvideo_rt.bench.server_process import ServerProcess
from hyvideo_rt.bench.stress_client import Client
from hyvideo_rt.bench.stress_jobs import Leftovers, Tale, broken_promises


def aftermath(server: ServerProcess, tales: Sequence[Tale]) -> dict[str, Any]:
    """Of a server that is idle; it is stopped afterwards. violations: promises that were broken."""
    server.stop()
    server.start()
    server.wait_ready()
    client = Client(server.url)
    for tale in tales:
        if not tale.deleted:
            client.create(tale)  # its key is still known, and nothing is made
            client.wait_end(tale)
    records = client.records()
    contents = client.contents(records)
    client.http.close()
    server.stop()
    left = Leftovers.of(server.data_dir)
    broken = broken_promises(tales, records, contents, server.log.endings, left)
    ends = [(record["error"] or {}).get("code") or record["status"] for record in records.values()]
    return {
        "jobs": len(tales),
        "deleted": sum(tale.deleted for tale in tales),
        "ends": {end: ends.count(end) for end in sorted(set(ends))},
        "second_attempts": sum(record["attempts"] > 1 for record in records.values()),
        "creates_repeated": sum(len(tale.ids) - 1 for tale in tales),
        "videos_checked": len(contents),
        "violations": {promise: named(who) for promise, who in broken.items()},
    }


def named(who: Sequence[str]) -> dict[str, object]:
    return {"count": len(who), "such_as": list(who[:3])}
