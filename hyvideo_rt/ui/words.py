"""Every visible word of the page, once in English and once in Chinese."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hyvideo_rt.ui.client import Refused


@dataclass(frozen=True)
class Words:
    """Names in braces are filled in by whoever says the sentence."""

    language: str
    other_language: str
    title: str
    subtitle: str
    prompt: str
    prompt_hint: str
    size: str
    ready: str
    built: str
    length: str
    frames: str
    steps: str
    seed: str
    seed_hint: str
    advanced: str
    guidance: str
    guidance_hint: str
    flow_shift: str
    embedded_guidance: str
    negative_prompt: str
    negative_prompt_hint: str
    make: str
    in_work: str
    queued: str
    queued_next: str
    stages: Mapping[str, str]
    step_of: str
    seconds_left: str
    minutes_left: str
    cancel: str
    dismiss: str
    player: str
    nothing_shown: str
    took: str
    made_at: str
    download: str
    reuse: str
    delete: str
    confirm_delete: str
    gallery: str
    no_videos: str
    older: str
    no_prompt: str
    refused: str
    refused_field: str
    try_again: str
    faults: Mapping[str, str]
    params: Mapping[str, str]

    def fault(self, code: str, message: str) -> str:
        """What happened; for codes that the page does not know, in the server's own words."""
        return self.faults.get(code) or self.refused.format(message=_first_line(message))

    def refusal(self, error: Refused) -> str:
        """Why the server did not do it, and when to try again."""
        field = self.params.get(error.param or "")
        if error.status == 400 and field and error.code not in self.faults:
            return self.refused_field.format(field=field, message=_first_line(error.message))
        sentence = self.fault(error.code, error.message)
        if error.retry_after_s:
            sentence += " " + self.try_again.format(seconds=error.retry_after_s)
        return sentence

    def left(self, seconds: float) -> str:
        if seconds < 90:
            return self.seconds_left.format(n=max(1, round(seconds)))
        return self.minutes_left.format(n=round(seconds / 60))


ENGLISH = Words(
    language="en",
    other_language="中文",
    title="hyvideo-rt",
    subtitle="Videos from text",
    prompt="Prompt",
    prompt_hint="What should the video show?",
    size="Size",
    ready="ready",
    built="built",
    length="Length",
    frames="{seconds} s ({frames} frames)",
    steps="Steps",
    seed="Seed",
    seed_hint="-1: a random one",
    advanced="Advanced",
    guidance="Guidance (real CFG)",
    guidance_hint="Above 1 every step is computed twice, with and without the prompt",
    flow_shift="Flow shift",
    embedded_guidance="Embedded guidance",
    negative_prompt="Negative prompt",
    negative_prompt_hint="What to avoid; counts if guidance is above 1",
    make="Make the video",
    in_work="In the works",
    queued="Waiting, {ahead} before it",
    queued_next="Waiting, next in line",
    stages={
        "load": "Loading engines",
        "encode": "Reading the prompt",
        "denoise": "Denoising",
        "decode": "Decoding",
        "write": "Writing the file",
    },
    step_of="{done} of {total}",
    seconds_left="{n} s left",
    minutes_left="about {n} min left",
    cancel="Cancel",
    dismiss="Dismiss",
    player="Video",
    nothing_shown="A finished video plays here.",
    took="Took",
    made_at="Made",
    download="Download",
    reuse="Use these parameters",
    delete="Delete",
    confirm_delete="Delete this video from the server?",
    gallery="Finished videos",
    no_videos="No videos yet.",
    older="Show older ones",
    no_prompt="Write a prompt first.",
    refused="The server refused: {message}",
    refused_field="The server did not accept “{field}”: {message}",
    try_again="Try again in {seconds} s.",
    faults={
        "unreachable": "The server does not answer. The page goes on trying.",
        "invalid_api_key": "The server does not accept this page's API key.",
        "queue_full": "Too many videos are waiting.",
        "worker_not_ready": "The model is still being loaded.",
        "worker_broken": "The server's device keeps failing; its operator has to look.",
        "draining": "The server is shutting down and takes no new videos.",
        "disk_full": "The server has no room left for videos.",
        "too_expensive": "This would take too long. Choose a smaller size, fewer frames or fewer steps.",
        "does_not_fit": "This size does not fit into the device's memory. Choose a smaller one.",
        "size_not_built": "This size and length are not built on the server. Choose others.",
        "video_not_found": "This video is no longer on the server.",
        "body_too_large": "The prompt is too long.",
        "cancelled": "Cancelled.",
        "worker_lost": "The process that made this video ended. Try again, or a smaller size.",
        "timeout": "This video made no progress for too long and was stopped.",
        "numerical_error": "The numbers went wrong (NaN or a flat picture). Try another seed.",
        "out_of_memory": "The device ran out of memory. Choose a smaller size.",
        "engine_error": "A compiled engine failed; the server's operator has to look.",
        "device_error": "The device failed. Try again.",
        "output_error": "The finished video could not be stored.",
        "internal_error": "The server failed; its log has more.",
    },
    params={
        "prompt": "Prompt",
        "size": "Size",
        "num_frames": "Length",
        "steps": "Steps",
        "seed": "Seed",
        "true_cfg_scale": "Guidance (real CFG)",
        "flow_shift": "Flow shift",
        "guidance_scale": "Embedded guidance",
        "negative_prompt": "Negative prompt",
    },
)

CHINESE = Words(
    language="zh",
    other_language="English",
    title="hyvideo-rt 视频",
    subtitle="用文字生成视频",
    prompt="提示词",
    prompt_hint="视频里要出现什么？",
    size="尺寸",
    ready="已就绪",
    built="已编译",
    length="时长",
    frames="{seconds} 秒（{frames} 帧）",
    steps="步数",
    seed="随机种子",
    seed_hint="-1 表示随机",
    advanced="高级选项",
    guidance="引导强度（真 CFG）",
    guidance_hint="大于 1 时，每一步要带提示词和不带提示词各算一次",
    flow_shift="流偏移",
    embedded_guidance="内嵌引导强度",
    negative_prompt="反向提示词",
    negative_prompt_hint="不想出现的内容；引导强度大于 1 时才起作用",
    make="生成视频",
    in_work="正在生成",
    queued="排队中，前面还有 {ahead} 个",
    queued_next="排队中，下一个就是它",
    stages={
        "load": "加载引擎",
        "encode": "读取提示词",
        "denoise": "去噪",
        "decode": "解码",
        "write": "写入文件",
    },
    step_of="第 {done} 步，共 {total} 步",
    seconds_left="还剩 {n} 秒",
    minutes_left="大约还剩 {n} 分钟",
    cancel="取消",
    dismiss="知道了",
    player="视频",
    nothing_shown="完成的视频在这里播放。",
    took="用时",
    made_at="完成时间",
    download="下载",
    reuse="使用这些参数",
    delete="删除",
    confirm_delete="要从服务器上删除这个视频吗？",
    gallery="已完成的视频",
    no_videos="还没有视频。",
    older="显示更早的视频",
    no_prompt="请先写提示词。",
    refused="服务器拒绝了请求：{message}",
    refused_field="服务器不接受“{field}”：{message}",
    try_again="请在 {seconds} 秒后重试。",
    faults={
        "unreachable": "服务器没有响应，页面会继续尝试。",
        "invalid_api_key": "服务器不接受本页面的 API 密钥。",
        "queue_full": "排队的视频太多了。",
        "worker_not_ready": "模型还在加载。",
        "worker_broken": "服务器的设备不断出错，需要管理员检查。",
        "draining": "服务器正在关闭，不再接受新的视频。",
        "disk_full": "服务器的磁盘空间不足。",
        "too_expensive": "生成时间会太长。请选择更小的尺寸、更少的帧数或步数。",
        "does_not_fit": "设备的显存放不下这个尺寸，请选择更小的尺寸。",
        "size_not_built": "服务器上没有编译这个尺寸和时长，请选择其他的。",
        "video_not_found": "服务器上已经没有这个视频了。",
        "body_too_large": "提示词太长了。",
        "cancelled": "已取消。",
        "worker_lost": "生成这个视频的进程意外结束。请重试，或选择更小的尺寸。",
        "timeout": "这个视频太久没有进展，已被停止。",
        "numerical_error": "计算结果出错（NaN 或纯色画面），请换一个随机种子。",
        "out_of_memory": "设备显存不足，请选择更小的尺寸。",
        "engine_error": "编译好的引擎出错，需要管理员检查。",
        "device_error": "设备出错，请重试。",
        "output_error": "完成的视频无法保存。",
        "internal_error": "服务器出错，日志里有详细信息。",
    },
    params={
        "prompt": "提示词",
        "size": "尺寸",
        "num_frames": "时长",
        "steps": "步数",
        "seed": "随机种子",
        "true_cfg_scale": "引导强度（真 CFG）",
        "flow_shift": "流偏移",
        "guidance_scale": "内嵌引导强度",
        "negative_prompt": "反向提示词",
    },
)
LANGUAGES = {words.language: words for words in (ENGLISH, CHINESE)}


def preferred(accept_language: str) -> Words:
    """The language of `Accept-Language` that its sender likes best of those we have; else English."""
    best, best_weight = ENGLISH, 0.0
    for item in accept_language.split(",")[:20]:
        name, _, weight = item.strip().partition(";q=")
        found = LANGUAGES.get(name.lower().split("-")[0])
        liked = float(weight) if re.fullmatch(r"[01](\.\d{0,3})?", weight) else 0.0 if weight else 1.0
        if found and liked > best_weight:
            best, best_weight = found, liked
    return best


def _first_line(text: str) -> str:
    return text.partition("\n")[0]
