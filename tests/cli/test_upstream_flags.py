"""Every flag of the original sample_video.py is taken with its own default; another model is refused."""

import pytest

from hyvideo_rt.cli.main import build_parser
from hyvideo_rt.cli.upstream_flags import FIXED, WITHOUT_EFFECT, check_fixed_flags, notices
from hyvideo_rt.errors import InvalidRequest

DEFAULTS = {  # as the original's parser prints them; None marks a switch
    "--model": "HYVideo-T/2-cfgdistill",
    "--latent-channels": "16",
    "--precision": "bf16",
    "--rope-theta": "256",
    "--vae": "884-16c-hy",
    "--vae-precision": "fp16",
    "--vae-tiling": None,
    "--text-encoder": "llm",
    "--text-encoder-precision": "fp16",
    "--text-states-dim": "4096",
    "--text-len": "256",
    "--tokenizer": "llm",
    "--prompt-template": "dit-llm-encode",
    "--prompt-template-video": "dit-llm-encode-video",
    "--hidden-state-skip-layer": "2",
    "--apply-final-norm": None,
    "--text-encoder-2": "clipL",
    "--text-encoder-precision-2": "fp16",
    "--text-states-dim-2": "768",
    "--tokenizer-2": "clipL",
    "--text-len-2": "77",
    "--denoise-type": "flow",
    "--flow-shift": "7.0",
    "--flow-reverse": None,
    "--flow-solver": "euler",
    "--use-linear-quadratic-schedule": None,
    "--linear-schedule-end": "25",
    "--model-base": "ckpts",
    "--dit-weight": "ckpts/hunyuan-video-t2v-720p/transformers/mp_rank_00_model_states.pt",
    "--model-resolution": "540p",
    "--load-key": "module",
    "--use-cpu-offload": None,
    "--batch-size": "1",
    "--infer-steps": "50",
    "--disable-autocast": None,
    "--save-path": "./results",
    "--save-path-suffix": "",
    "--name-suffix": "",
    "--num-videos": "1",
    "--video-length": "129",
    "--seed-type": "auto",
    "--seed": "42",
    "--neg-prompt": "",
    "--cfg-scale": "1.0",
    "--embedded-cfg-scale": "6.0",
    "--use-fp8": None,
    "--reproduce": None,
    "--ulysses-degree": "1",
    "--ring-degree": "1",
}


def test_all_flags_at_once_with_the_originals_defaults() -> None:
    flags = [word for flag, value in DEFAULTS.items() for word in (flag, value) if word is not None]
    args = build_parser().parse_args(["generate", "--prompt", "x", "--video-size", "720", "1280", *flags])
    check_fixed_flags(args)
    assert len(list(notices(args))) == len(WITHOUT_EFFECT)
    assert (args.infer_steps, args.flow_shift, args.embedded_cfg_scale) == (50, 7.0, 6.0)


def test_what_is_left_out_equals_the_originals_default() -> None:
    args = build_parser().parse_args(["generate", "--prompt", "x"])
    for flag in (
        "--text-len",
        "--hidden-state-skip-layer",
        "--flow-shift",
        "--cfg-scale",
        "--embedded-cfg-scale",
    ):
        assert getattr(args, flag[2:].replace("-", "_")) == float(DEFAULTS[flag] or "nan")
    assert args.flow_reverse is True  # the one default that differs: the published weights need it
    assert list(notices(args)) == []


@pytest.mark.parametrize("flag", FIXED)
def test_a_value_of_another_model_is_refused(flag: str) -> None:
    args = build_parser().parse_args(["generate", "--prompt", "x", f"--{flag}", "other"])
    with pytest.raises(InvalidRequest, match=f"got --{flag} other; expected {FIXED[flag]}"):
        check_fixed_flags(args)
