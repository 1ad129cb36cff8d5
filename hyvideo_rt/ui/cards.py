"""Videos as HTML. Whatever people wrote is escaped here; buttons say in `data-do` and `data-id` what they do.

Links are relative to a page at /ui/LANGUAGE/, so that they hold behind any proxy.
"""

import time
from collections.abc import Sequence
from html import escape

from hyvideo_rt.ui.client import Video
from hyvideo_rt.ui.form import length_label
from hyvideo_rt.ui.words import Words


def notice(text: str) -> str:
    return f'<p class="hv-notice" role="alert">{escape(text)}</p>' if text else ""


def works(active: Sequence[Video], ended: Sequence[Video], words: Words) -> str:
    """What is being made, in the order of the queue; then what this page asked for and did not get."""
    title = f"<h2>{escape(words.in_work)}</h2>" if active else ""
    cards = [_active(video, words) for video in active] + [_failed(video, words) for video in ended]
    return title + "".join(cards)


def player(video: Video | None, words: Words) -> str:
    if video is None:
        return f'<div class="hv-empty">{escape(words.nothing_shown)}</div>'
    source = f"../videos/{escape(video.id)}"
    buttons = "".join(
        (
            f'<a class="hv-button" href="{source}" download="{escape(video.id)}.mp4">{words.download}</a>',
            _button("reuse", video.id, words.reuse),
            _button("delete", video.id, words.delete, confirm=words.confirm_delete),
        )
    )
    return (
        f'<video src="{source}" poster="{source}?variant=thumbnail" aria-label="{escape(video.prompt)}" '
        f"controls autoplay loop muted playsinline></video>"
        f'<p class="hv-prompt">{escape(video.prompt)}</p><div class="hv-buttons">{buttons}</div>'
        f"{_parameters(video, words)}"
    )


def gallery(videos: Sequence[Video], shown: str | None, words: Words) -> str:
    if not videos:
        return f'<div class="hv-empty">{escape(words.no_videos)}</div>'
    return f'<div class="hv-grid">{"".join(_thumbnail(video, shown) for video in videos)}</div>'


def _active(video: Video, words: Words) -> str:
    return (
        f'<div class="hv-card" data-video="{escape(video.id)}"><div class="hv-line">'
        f'<span class="hv-prompt">{escape(video.prompt)}</span>'
        f"{_button('cancel', video.id, words.cancel)}</div>"
        f'<progress max="100" value="{video.progress}" aria-label="{escape(words.in_work)}"></progress>'
        f'<div class="hv-status" role="status">{escape(status(video, words))}</div></div>'
    )


def status(video: Video, words: Words) -> str:
    """`Denoising · 12 of 50 · 34 s left`, as far as it is known."""
    parts = []
    if video.status == "queued":
        ahead = video.queue_position
        parts.append(words.queued.format(ahead=ahead) if ahead else words.queued_next)
    elif video.stage:
        parts.append(words.stages.get(video.stage.name, video.stage.name))
        if video.stage.total > 1:
            parts.append(words.step_of.format(done=video.stage.done, total=video.stage.total))
    if video.seconds_left is not None:
        parts.append(words.left(video.seconds_left))
    return " · ".join(parts)


def _failed(video: Video, words: Words) -> str:
    fault = video.error
    text = words.fault(fault.code, fault.message) if fault else video.status
    own_wish = fault is not None and fault.code == "cancelled"
    kind = "hv-failed" if own_wish else "hv-failed hv-fault"
    return (
        f'<div class="hv-card {kind}" data-video="{escape(video.id)}"><div class="hv-line">'
        f'<span class="hv-prompt">{escape(video.prompt)}</span>'
        f"{_button('dismiss', video.id, words.dismiss)}</div>"
        f'<div class="hv-status" role="status">{escape(text)}</div></div>'
    )


def _thumbnail(video: Video, shown: str | None) -> str:
    name = escape(video.prompt)
    return (
        f'<button type="button" class="hv-thumb" data-do="play" data-id="{escape(video.id)}" '
        f'aria-pressed="{str(video.id == shown).lower()}" title="{name}">'
        f'<img src="../videos/{escape(video.id)}?variant=thumbnail" alt="" loading="lazy">'
        f"<span>{name}</span></button>"
    )


def _parameters(video: Video, words: Words) -> str:
    rows = [
        (words.size, video.size.replace("x", "×")),
        (words.length, length_label(video.num_frames, words)),
        (words.steps, video.steps),
        (words.seed, video.seed),
        (words.guidance, f"{video.true_cfg_scale:g}"),
        (words.flow_shift, f"{video.flow_shift:g}"),
        (words.embedded_guidance, f"{video.guidance_scale:g}"),
    ]
    if video.negative_prompt:
        rows.append((words.negative_prompt, video.negative_prompt))
    if video.stage_seconds:
        rows.append((words.took, f"{sum(video.stage_seconds.values()):.1f} s"))
    if video.completed_at:
        rows.append((words.made_at, time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(video.completed_at))))
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in rows)
    return f'<dl class="hv-parameters">{lines}</dl>'


def _button(action: str, video_id: str, text: str, confirm: str = "") -> str:
    question = f' data-confirm="{escape(confirm)}"' if confirm else ""
    return (
        f'<button type="button" class="hv-button" data-do="{action}" data-id="{escape(video_id)}"{question}>'
        f"{escape(text)}</button>"
    )
