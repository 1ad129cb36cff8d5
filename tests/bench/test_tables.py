"""Cells worked out by hand, from results made up so that they can be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyvideo_rt.bench import gpu_tables, markdown, quality_tables, readme, server_tables, tables

CPU = {
    "cpu": "a CPU",
    "threads": 2,
    "torch": "2",
    "commit": "abc",
    "command": "python -m x",
    "diffusers": "1.2.3",
    "weights": "tiny",
    "sizes": ["64x64x17"],
}
GPU = {
    "gpu": "NVIDIA H100 80GB HBM3, 580.1, 700.00 W, 1980 MHz",
    "gpu_under_load": {"clocks.sm": "1755 MHz"},
    "torch": "2",
    "commit": "abc",
    "command": "python -m x",
    "weights": "random",
}
LIMITS = {"copy_gb_s": 100.0, "matrix_tf_s": {"float32": 0.4, "bfloat16": 800.0, "float8_e4m3fn": 1600.0}}
Put = Callable[[str, dict[str, Any]], None]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Into a folder of results that has nothing but the committed quality."""

    def write(name: str, result: dict[str, Any]) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(result))

    quality = markdown.load("cpu/quality.json")
    for module in (markdown, gpu_tables, quality_tables, readme):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    write("cpu/quality.json", quality)
    return write


def timing(median_s: float, spread: float = 0.1) -> dict[str, float]:
    return {
        "median_s": median_s,
        "p20_s": (1 - spread) * median_s,
        "p80_s": (1 + spread) * median_s,
        "runs": 9,
    }


def ratio(median: float, rounds: int = 9) -> dict[str, Any]:
    sure = rounds >= 5
    return {
        "median": median,
        "low": 0.9 * median if sure else None,
        "high": 1.1 * median if sure else None,
        "rounds": rounds,
    }


def cells(text: str, row: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {row}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_whole_video(put: Put) -> None:
    stages: dict[str, Any] = {
        stage: {"hyvideo_rt": timing(0.2), "diffusers": timing(0.8), "ratios": {"eager": ratio(4)}}
        for stage in ("encode", "denoise", "decode", "video")
    }
    stages["video"]["diffusers"] |= {"host_peak_bytes": 60e6, "host_steady_bytes": 5.5e6}
    stages["write"] = {"hyvideo_rt": timing(0.01), "ratios": {}}
    flops = dict.fromkeys(("encode", "denoise", "decode", "video"), 16_000_000_000)
    result = {
        "conditions": CPU,
        "limits": LIMITS,
        "flops": flops,
        "stages": stages,
        "max_video_difference": 7e-6,
        "reasons": {"diffusers_compiled": "not here"},
    }
    put("cpu/end_to_end.json", result)
    text = tables.cpu_table()
    assert cells(text, "whole video") == [
        *("whole video", "16 GF", "200.0 ms (180.0-220.0); 80 GF/s, 20 %", ""),
        *("800.0 ms (720.0-880.0); 20 GF/s, 5 %", "", "4.00 (3.60-4.40)", ""),
    ]
    # 17 x 64 x 64 x 3 bytes read and written in 10 ms are 41.8 MB/s of 100 GB/s
    assert cells(text, "MP4")[1:3] == ["0.209 MB", "10.0 ms (9.0-11.0); 41.8 MB/s, 0.04 %"]
    assert cells(text, "its memory")[2:5] == ["", "", "60 MB, 5.5 MB"]
    assert "diffusers 1.2.3" in text
    assert "diffusers_compiled did not run: not here. The videos differ by at most 7e-06." in text


def test_a_ladder(put: Put) -> None:
    about = {"stage": "denoise", "size": "544x960x129", "tokens": 100, "quality": None, "dtype": "bfloat16"}
    memory = {
        "host_peak_bytes": 1,
        "host_steady_bytes": 1,
        "device_peak_bytes": 30e9,
        "device_steady_bytes": 26e9,
    }
    ran = (
        about | timing(8.0) | {"tf_s": 400.0, "least_s": 4.0, "share_of_limit": 0.5, "first_s": 9.0} | memory
    )
    rows = [
        ran | {"rung": "diffusers", "difference": 0.0},
        ran
        | {"rung": "fp8", "quality": "8-bit products", "ratio": ratio(1.25, rounds=2), "difference": 0.02},
        about | {"rung": "xDiT", "reason": "not here"},
        about | {"rung": "last", "first_s": 9.0, "difference": 0.01} | memory,
    ]
    put("h100/steps-544x960x129.json", {"conditions": GPU, "limits": LIMITS, "rows": rows[:1]})
    put("h100/steps-720x1280x129.json", {"conditions": GPU, "limits": LIMITS, "rows": rows[1:]})
    text = tables.steps_table("denoise", "h100")
    assert cells(text, "544x960x129 | diffusers") == [
        *("544x960x129", "diffusers", "8.00 s (7.20-8.80)", "", "400 TF/s, 50 %", "", "9.00 s"),
        *("30 GB, 26 GB", "400.00 s"),
    ]
    fp8 = cells(text, f"544x960x129 | fp8 {quality_tables.lossy_words('8-bit products')}")
    assert fp8[3:6] == ["1.25 (2 rounds, no interval)", "400 TF/s, 50 %", "2e-02"]
    assert cells(text, "544x960x129 | xDiT")[2:4] == ["did not run: not here", ""]
    assert cells(text, "544x960x129 | last")[2:] == [
        "cut before its turn",
        "",
        "",
        "1e-02",
        "9.00 s",
        "30 GB, 26 GB",
        "",
    ]
    assert "It is 3.2 PF at 544x960x129." in text
    assert "1755 MHz under load" in text


def test_a_request(put: Put) -> None:
    about = GPU | {"sizes": ["544x960x129"], "steps": 50, "precision": "bf16"}
    result = {"conditions": about, "ours": {"kernels": "triton, fa3"}, "complete": False, "first_step_s": 9.0}
    result |= {"seconds": {"encode": 0.05, "denoise": 350.0, "video": 350.05}, "step": timing(7.0)}
    memory = {"host_peak_bytes": 2e9, "device_peak_bytes": 62.5e9, "device_steady_bytes": 43e9}
    put("h100/request.json", result | memory | {"shares": {"encode": 0.12, "denoise": 0.6}})
    text = tables.request_table("h100")
    assert cells(text, "50 steps") == ["50 steps", "350.00 s", "60 %"]
    assert cells(text, "of the steps")[1] == "9.00 s, 7.00 s (6.30-7.70)"
    assert cells(text, "memory")[1] == "62.5 GB, 43 GB"
    assert "VAE decode" not in text
    assert "one request, cut before its end, " in text


def test_engines(put: Put) -> None:
    raced = {"engines": timing(0.1), "eager": timing(0.2), "flops": 20_000_000_000, "ratio": ratio(2)}
    row = {"size": "64x64x17", "build_s": 40.0, "bytes": 7_300_000, "load_s": 0.0145, "swap_s": 0.0008}
    row |= {
        "first_step_s": 0.12,
        "host_peak_bytes": 5e6,
        "host_steady_bytes": 2e6,
        "step": raced,
        "tile": raced,
    }
    backends = [
        {"backend": "inductor", "bind_s": 0.01, "rows": [row]},
        {"backend": "tensorrt", "bind_s": None, "rows": [{"size": "64x64x17", "reason": "not installed"}]},
    ]
    put("cpu/engines.json", {"conditions": CPU, "limits": LIMITS, "backends": backends})
    text = tables.engines_table()
    cell = "100.0 ms (90.0-110.0); 2.00 (1.80-2.20); 200 GF/s, 50 %"
    assert cells(text, "inductor") == [
        *(
            "inductor",
            "64x64x17",
            "40 s",
            "7.3 MB",
            "14.5 ms",
            "0.80 ms",
            "120.0 ms",
            "5 MB, 2 MB",
            cell,
            cell,
        )
    ]
    assert cells(text, "tensorrt")[2] == "did not run: not installed"
    assert text.rstrip().endswith("Bind, once for all sizes: inductor 10.0 ms.")


def test_attention_is_against_the_rate_of_its_bits(put: Put) -> None:
    def row(backend: str, quality: str | None, ms: float) -> dict[str, Any]:
        about = {"backend": backend, "quality": quality, "bits": 8 if quality else 16, "size": "720x1280x129"}
        spread = {"p20_ms": 0.9 * ms, "p80_ms": 1.1 * ms, "runs": 5, "relative_error": 0.01}
        return about | spread | {"ms": ms, "tf_s": 80_000 / ms, "ratio": ratio(2) | {"of": "sdpa"}}

    rows = [row("fa3", None, 200), row("fa3-fp8", "8-bit attention", 100)]
    rows.append(row("sage", "SageAttention (INT8)", 150))
    put("h100/kernels.json", {"conditions": GPU, "limits": LIMITS, "memory": [], "attention": rows})
    text = gpu_tables.attention_table()
    # 80 TF take 100 ms at 800 TF/s, 50 ms at 1600, and 75 ms half at one and half at the other
    assert cells(text, "fa3 |")[2:4] == ["200 ms (180-220), 2.00 (1.80-2.20)", "400, 50 %"]
    assert cells(text, "fa3-fp8")[2:4] == ["100 ms (90-110), 2.00 (1.80-2.20)", "800, 50 %"]
    assert cells(text, "sage")[3] == "533, 50 %"
    assert cells(text, "sage")[-1] == quality_tables.quality_words("SageAttention (INT8)")


def test_operators(put: Put) -> None:
    def at(ms: float) -> dict[str, float]:
        return {"ms": ms, "p20_ms": ms / 2, "p80_ms": 2 * ms, "gb_s": 80 / ms}

    row = {
        "kernel": "gelu_rows",
        "quality": "8-bit products",
        "bytes": 80_000_000,
        "ratios": {"eager": ratio(4)},
    }
    row |= {"eager": at(4), "triton": at(1)}
    put("h100/kernels.json", {"conditions": GPU, "limits": LIMITS, "memory": [row], "attention": []})
    found = cells(gpu_tables.kernels_table(), f"gelu_rows {quality_tables.lossy_words('8-bit products')}")
    assert found[1:] == ["20 (10-40), 4.00 (3.60-4.40)", "80 (40-160)", "80 %"]


def test_the_memory_plan(put: Put) -> None:
    row = {"stage": "denoise", "bucket": "720x1280x129", "seconds": 20.0, "activations_gib": 13.03}
    put("h100/footprint.json", {"conditions": GPU, "kernels": "triton", "rows": [row]})
    # 12,058 TF in 20 s, of 989 TF/s
    assert cells(gpu_tables.gpu_table(), "one step") == [
        *("one step", "720x1280x129", "triton", "20.00 s", "1000 s", "603, 61 %", "13.0 GiB", "13.6 GiB")
    ]
    put("h100/footprint.json", {"conditions": GPU, "kernels": "triton", "rows": [row], "limits": LIMITS})
    assert cells(gpu_tables.gpu_table(), "one step")[5] == "603, 75 %"


def test_a_setting_that_nobody_judged(put: Put) -> None:
    put("cpu/quality.json", {"prompts": 60, "settings": {}})
    assert quality_tables.lossy_words("8-bit attention").endswith(" was not judged yet)")


def test_quality(put: Put) -> None:
    one = {"mean": -0.015, "low": -0.03, "high": 0.01}
    points = {name: dict(one) for name in quality_tables.JUDGED}
    row = {
        "psnr_db": 34.46,
        "ssim": 0.9756,
        "latent_error_mean": 0.0771,
        "latent_error_max": 9.51,
        "points": points,
    }
    settings = {"8-bit products": row, "8-bit attention": {"reason": "not here"}}
    bf16 = dict.fromkeys(quality_tables.JUDGED, 0.905)
    put("h100/quality.json", {"conditions": GPU, "prompts": 60, "bf16": bf16, "settings": settings})
    text = quality_tables.quality_table("h100")
    assert cells(text, "8-bit products") == [
        *("8-bit products", "34.5 dB", "0.976", "0.077, 9.5", *4 * ["-1.5 (-3.0 to +1.0)"], "11.4 s")
    ]
    assert cells(text, "8-bit attention")[1] == "did not run: not here"
    more = {"conditions": GPU, "bf16": bf16, "settings": {"8-bit weights": row}}
    put("h100/quality_more.json", more | {"prompts": 60})
    put("h100/quality_few.json", more | {"prompts": 16, "settings": {"fp32": row}})
    text = quality_tables.quality_table("h100")
    assert cells(text, "8-bit weights")[1] == "34.5 dB"
    assert "| fp32 |" not in text, "that was of other prompts"
    assert quality_tables.quality_words("8-bit products", "h100").endswith("right -1.5 (-3.0 to +1.0) points")
    on_a_cpu = quality_tables.quality_words("8-bit attention")
    assert quality_tables.quality_words("8-bit attention", "h100") == on_a_cpu, "judged there alone"


def test_a_cold_start(put: Put) -> None:
    ends = {phase: timing(s) for phase, s in (("import_s", 1.0), ("load_s", 2.0), ("first_step_s", 3.0))}
    ours = ends | {"video_s": timing(4.0), "now_bytes": 350e6, "peak_bytes": 365e6}
    processes: dict[str, Any] = {"hyvideo_rt": ours, "diffusers_compiled": ours}
    processes |= {"torch": {"import_s": timing(0.5), "now_bytes": 2e8, "peak_bytes": 2e8}}
    processes |= {"engines": ours | {"build_s": 40.0}, "diffusers": {"reason": "not here"}}
    result = {"conditions": CPU, "limits": LIMITS, "flops": {"video": 40_000_000_000}, "processes": processes}
    put("cpu/startup.json", result | {"checkpoint_bytes": 5e9, "ratios": {"hyvideo_rt": ratio(4)}})
    text = tables.startup_table()
    # 40 GF at 400 GF/s and 5 GB read and written at 100 GB/s are 0.2 s
    assert cells(text, "hyvideo-rt")[3:] == [
        *("3.00 s (2.70-3.30)", "4.00 s (3.60-4.40)", "4.00 (3.60-4.40)", "5.0 %", "350 MB", "365 MB")
    ]
    assert cells(text, "diffusers |")[1] == "did not run: not here"


def test_the_server(put: Put) -> None:
    overhead: dict[str, Any] = {"bare": timing(0.2), "sync": timing(0.25), "followed": timing(0.25)}
    overhead |= {
        "servers": 2,
        "ratios": {"sync": ratio(1.25), "followed": ratio(1)},
        "added_ms": {"sync": 10.7, "followed": 11.4},
    }
    burst: dict[str, Any] = {"creates": 9, "connections": 2, "statuses": {"200": 4, "429": 5}}
    burst |= {"refused_p50_ms": 9.0, "refused_p99_ms": 14.0}
    result = {"conditions": CPU, "limits": LIMITS, "flops": {"video": 40_000_000_000}}
    put("cpu/server_load.json", result | {"overhead": overhead, "burst": burst})
    text = server_tables.server_table()
    # 40 GF at 400 GF/s take 100 ms
    assert cells(text, "one video in one")[1:] == ["250.0 ms (225.0-275.0), 1.25 (1.12-1.38)", "40 %"]
    assert cells(text, "one video, created")[1] == "250.0 ms (225.0-275.0), no difference (0.90-1.10)"
    assert cells(text, "9 creates")[1] == "4, 5"


def test_graphs_and_loading(put: Put) -> None:
    case = {
        "eager": timing(0.2),
        "onnxruntime": timing(0.1),
        "openvino": timing(0.4),
        "flops": 20_000_000_000,
    }
    case["ratios"] = {"onnxruntime": ratio(2), "openvino": ratio(0.5)}
    libraries = {"onnxruntime": "1.32", "openvino": "2026.4.1-22982-releases"}
    put("cpu/graphs.json", {"conditions": CPU | libraries, "limits": LIMITS, "rows": {"a block": case}})
    assert cells(tables.graphs_table(), "a block") == [
        *("a block", "200.0 ms (180.0-220.0), 25 %", "100.0 ms (90.0-110.0), 2.00 (1.80-2.20), 50 %"),
        "400.0 ms (360.0-440.0), 0.50 (0.45-0.55), 12 %",
    ]
    row = {"layout": "original", "precision": "bf16", "checkpoint_gib": 1.0, "peak_ratio": 1.04}
    row |= {"least_ratio": 1.0, "seconds": 0.2}
    put("cpu/weights.json", {"conditions": CPU, "copy_gb_s": 100.0, "rows": [row]})
    assert cells(tables.loading_table(), "original")[-1] == "10.7 GB/s, 11 %"


def test_a_suites_folder_becomes_the_tables_it_has_results_for(put: Put, tmp_path: Path) -> None:
    assert readme.suite_tables("h100") == "None yet.\n"
    committed = Path(tables.__file__).parent / "results" / "cpu"
    for name in ("steps", "request", "engines", "quality"):
        put(f"h100/{name}.json", json.loads((committed / f"{name}.json").read_text()))
    text = readme.suite_tables(str(tmp_path / "h100"))
    titles = [line for line in text.splitlines() if line.endswith(":") and not line.startswith("|")]
    assert titles == ["One step:", "One decode:", "A whole request:", "Engines:", "What 8 bits do to videos:"]
