"""The tables of the server: what it adds to a video, and what it survives."""

from hyvideo_rt.bench.markdown import Result, cpu_words, device_words, load, ratio_words, table, timing_words

MIB = 2**20


def server_table() -> str:
    result = load("cpu/server_load.json")
    overhead, burst = result["overhead"], result["burst"]
    accepted, refused = (burst["statuses"][status] for status in ("200", "429"))
    least_ms = 1e-9 * result["flops"]["video"] / result["limits"]["matrix_tf_s"]["float32"]

    def video(name: str) -> str:
        row = overhead[name]
        more = f", {ratio_words(overhead['ratios'][name])}" if name in overhead["ratios"] else ""
        return f"{timing_words(row)}{more} | {1e-1 * least_ms / row['median_s']:.0f} %"

    rows = [
        f"| one video, pipeline and file alone | {video('bare')} |\n",
        f"| one video in one request | {video('sync')} |\n",
        f"| one video, created and followed | {video('followed')} |\n",
        f"| of these outside the worker's stages | {overhead['added_ms']['sync']:.1f}, "
        f"{overhead['added_ms']['followed']:.1f} ms | |\n",
        f"| {burst['creates']} creates at once: accepted, refused | {accepted}, {refused} | |\n",
        f"| a refusal, median and 99th percentile | {burst['refused_p50_ms']:.0f}, "
        f"{burst['refused_p99_ms']:.0f} ms | |\n",
    ]
    notes = (
        f"Embedded model, {device_words(result)}. {overhead['servers']} fresh servers; ",
        f"{overhead['bare']['runs']} videos in each way, turn by turn, those of the pipeline alone in the ",
        "worker's own process. Ratios are in units of what it takes there. The limit is the arithmetic of a ",
        f"video at a large product's rate. The burst has {burst['connections']} connections, while the ",
        "worker makes videos on the same cores. ",
        f"Every accepted video ended once. `{result['conditions']['command']}`",
    )
    return table(("", "median, ratio to the pipeline alone", "of the limit"), rows, notes)


def stress_table() -> str:
    """Counts, not times: they were had beside other work on the same cores."""
    parts, points = load("cpu/server_stress.json"), load("cpu/kill_points.json")
    kills, cancels, malformed, soak = (parts[name] for name in ("kills", "cancels", "malformed", "soak"))
    found = sum(outcome != "not found" for outcome in points["defects"].values())
    rows = [
        _row(
            "`kill -9` before and after every durable operation and message",
            f"{points['points']} points, {points['kills']} kills of server and worker, "
            f"{points['kills_during_recovery']} during the recovery from another",
            points,
            f"{found} of {len(points['defects'])} defects that were put in",
        ),
        _row(
            "`kill -9` under traffic",
            f"{kills['kills']['in_all']} kills, {kills['jobs']} jobs, {kills['videos_checked']} videos seen",
            kills,
        ),
        _row(
            "cancelled or deleted at random moments",
            f"{cancels['cancels']} of {cancels['jobs']} jobs; device free after "
            f"{cancels['latency']['mean_ms']:.0f} ms on average, a step took about "
            f"{1e3 * cancels['life_s'] / cancels['conditions']['steps']:.0f} ms",
            cancels,
        ),
        _row(
            "malformed requests",
            f"{malformed['requests']} on raw connections, {len(malformed['kinds'])} kinds",
            malformed,
        ),
        _row(
            f"everything that clients do, for {soak['sound']['minutes']:.0f} minutes",
            f"{soak['sound']['videos_completed']} videos; memory grew by {_growth(soak['sound'])} "
            f"(at most {soak['limit_bytes'] / MIB:.0f})",
            soak,
            f"a server that leaks: {_growth(soak['leaking_on_purpose'])} "
            f"in {soak['leaking_on_purpose']['minutes']:.0f} minutes",
        ),
    ]
    all_ = {**parts, "kill points": points}
    commits = ", ".join(f"{name} {part['conditions']['commit']}" for name, part in all_.items())
    machines: dict[str, list[str]] = {}
    for name, part in all_.items():
        machines.setdefault(cpu_words(part["conditions"]), []).append(name)
    where = "; ".join(f"{', '.join(names)} on {machine}" for machine, names in machines.items())
    notes = (
        f"Embedded model; {where}; ",
        "beside other work. A violation is a job that ends twice or not at all, a video that is not whole, ",
        "a second one for the same key, a file of no video, a failure of the server. Counts have no limit ",
        "to be near to. ",
        f"`hyvideo-rt bench server-stress`, `{points['conditions']['command']}`; commits: {commits}.",
    )
    return table(("", "how often", "violations", "what the check has to find"), rows, notes)


def _row(what: str, how_often: str, result: Result, control: str = "") -> str:
    return f"| {what} | {how_often} | {len(result['violations'])} | {control} |\n"


def _growth(soaked: Result) -> str:
    return ", ".join(
        f"{name} {growth['grew_bytes'] / MIB:.1f} MiB" for name, growth in soaked["growth"].items()
    )
