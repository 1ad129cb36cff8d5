"""One language's page. On every tick of a timer it asks the API what there is, so that it shows the same
after a reload, in a second window and when somebody else's video is being made.
"""

from typing import Any

import gradio as gr

from hyvideo_rt.ui import cards, form
from hyvideo_rt.ui.client import Client, Model, Refused, Video
from hyvideo_rt.ui.tab import GALLERY, Tab, look
from hyvideo_rt.ui.words import LANGUAGES, Words

BUSY_S, IDLE_S = 0.5, 3.0  # between two looks at the API
ON_CLICK = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-do]');
  if (!button || (button.dataset.confirm && !window.confirm(button.dataset.confirm))) return;
  trigger('click', {action: button.dataset.do, id: button.dataset.id});
});
"""
# The fields go along to the page in the other language, and come back with a reload of the window.
GO = """(...values) => {
  sessionStorage.setItem('hyvideo-rt', JSON.stringify(values));
  window.location.href = '../%s/';
}"""
COME = """(...values) => {
  document.documentElement.lang = '%s';
  const kept = JSON.parse(sessionStorage.getItem('hyvideo-rt') || 'null');
  sessionStorage.removeItem('hyvideo-rt');
  return kept && kept.length === values.length ? kept : values;
}"""


class Page:
    """The components of one page and what happens to them; made inside `gr.Blocks`."""

    def __init__(self, client: Client, words: Words, blocks: gr.Blocks) -> None:
        self._client, self._words = client, words
        self._lay_out()
        self._connect(blocks)

    def _lay_out(self) -> None:
        words = self._words
        self.tab = gr.State(Tab())
        self.timer = gr.Timer(IDLE_S)
        with gr.Row():
            head = f"<h1>{words.title}</h1><span>{words.subtitle}</span>"
            gr.HTML(head, elem_classes="hv-head", scale=8)
            self.switch = gr.Button(
                words.other_language, size="sm", scale=0, min_width=96, elem_id="hv-switch"
            )
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=320):
                self.fields = self._fields()
                self.make = gr.Button(words.make, variant="primary")
                self.notice = gr.HTML(elem_classes="hv-page")
                self.works = gr.HTML(elem_classes="hv-page", js_on_load=ON_CLICK)
            with gr.Column(scale=6, min_width=320):
                empty = cards.player(None, words)
                self.player = gr.HTML(empty, elem_classes="hv-page hv-player", js_on_load=ON_CLICK)
        gr.HTML(f"<h2>{words.gallery}</h2>", elem_classes="hv-page")
        self.gallery = gr.HTML(elem_classes="hv-page", js_on_load=ON_CLICK)
        self.older = gr.Button(words.older, size="sm", visible=False)

    def _fields(self) -> list[Any]:
        """In the order of `form.wanted`; names of the original's are beside ours."""
        words = self._words
        prompt = gr.Textbox(label=words.prompt, placeholder=words.prompt_hint, lines=3, max_lines=8)
        with gr.Row():
            size = gr.Dropdown([], label=words.size, min_width=200, elem_id="hv-size")  # resolution
            length = gr.Dropdown([], label=words.length, min_width=200, elem_id="hv-length")  # video_length
        steps = gr.Slider(1, form.MAX_STEPS, value=50, step=1, label=words.steps)  # num_inference_steps
        with gr.Accordion(words.advanced, open=False):
            seed = gr.Number(form.RANDOM_SEED, label=words.seed, info=words.seed_hint, precision=0)
            guidance = gr.Slider(
                1, 20, value=1, step=0.5, label=words.guidance, info=words.guidance_hint
            )  # guidance_scale
            negative = gr.Textbox(
                label=words.negative_prompt, info=words.negative_prompt_hint, lines=1, max_lines=4
            )
            shift = gr.Slider(0.1, 10, value=7, step=0.1, label=words.flow_shift)
            embedded = gr.Slider(
                1, 20, value=6, step=0.5, label=words.embedded_guidance
            )  # embedded_guidance_scale
        return [prompt, size, length, steps, seed, guidance, shift, embedded, negative]

    def _connect(self, blocks: gr.Blocks) -> None:
        """Nothing here takes long, so nothing waits in Gradio's queue; no function is offered as an API."""
        now: Any = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        often = now | {"trigger_mode": "multiple"}
        drawn = [self.notice, self.works, self.player, self.gallery, self.older, self.timer]
        choices = self.fields[1:4]
        size, length = choices[:2]
        other = next(name for name in LANGUAGES if name != self._words.language)
        opened = blocks.load(self._tick, self.tab, [*drawn, *choices], **now)
        opened.then(None, self.fields, self.fields, js=COME % self._words.language, **now)
        self.timer.tick(self._tick, self.tab, [*drawn, *choices], **now)
        self.switch.click(None, self.fields, None, js=GO % other, **now)
        size.input(self._lengths, [self.tab, size, length], length, **now)
        self.make.click(self._make, [self.tab, *self.fields], drawn, **often)
        self.older.click(self._older, self.tab, drawn, **now)
        for part in (self.works, self.player, self.gallery):
            part.click(self._act, self.tab, [*drawn, *self.fields], **often)

    # What happens.

    def _tick(self, tab: Tab) -> list[Any]:
        """The fields' choices come with the server's first answer, which may be a while after the page."""
        with tab.lock:
            was_known = tab.model is not None
            parts = self._draw(tab)
            return [*parts, *([gr.skip()] * 3 if was_known or not tab.model else self._choices(tab.model))]

    def _make(self, tab: Tab, *values: Any) -> list[Any]:
        with tab.lock:
            if not str(values[0]).strip():
                return self._draw(tab, self._words.no_prompt)
            if tab.model is None:
                return self._draw(tab, self._words.faults["worker_not_ready"])
            try:
                video = self._client.create(form.wanted(values))
            except Refused as error:
                return self._draw(tab, self._words.refusal(error))
            tab.asked.append(video.id)
            return self._draw(tab, "")

    def _older(self, tab: Tab) -> list[Any]:
        with tab.lock:
            tab.count += GALLERY
            return self._draw(tab)

    def _act(self, tab: Tab, event: gr.EventData) -> list[Any]:
        """A button inside of a card."""
        with tab.lock:
            fields = [gr.skip()] * len(self.fields)
            try:
                fields = self._do(tab, str(event.action), str(event.id)) or fields
            except Refused as error:
                return [*self._draw(tab, self._words.refusal(error)), *fields]
            return [*self._draw(tab, ""), *fields]

    def _do(self, tab: Tab, action: str, video_id: str) -> list[Any] | None:
        """Values for the fields, if it has any. Raises Refused."""
        if action == "play":
            tab.shown = video_id
        elif action == "cancel":
            self._client.cancel(video_id)
        elif action == "delete":
            self._client.delete(video_id)
        elif action == "dismiss":
            tab.asked = [asked for asked in tab.asked if asked != video_id]
        elif action == "reuse":
            return self._same_as(tab, self._client.retrieve(video_id))
        return None

    # What is shown.

    def _draw(self, tab: Tab, said: str | None = None) -> list[Any]:
        """Notice, works, player, gallery, button and timer. A notice stays until something is done.

        Player and gallery are sent when they have changed only: a video that plays goes on.
        """
        try:
            found = look(self._client, tab)
        except Refused as error:
            tab.drawn = ()
            return [cards.notice(said or self._words.refusal(error)), *[gr.skip()] * 5]
        if said is None and not tab.drawn:
            said = ""  # the server answers again
        parts = (
            cards.player(found.shown, self._words),
            cards.gallery(found.completed, tab.shown, self._words),
            found.has_older,
            BUSY_S if found.active else IDLE_S,
        )
        updates = (parts[0], parts[1], gr.update(visible=parts[2]), gr.Timer(parts[3]))
        hashes = tuple(map(hash, parts))
        changed = [new != old for new, old in zip(hashes, tab.drawn or (None,) * 4, strict=True)]
        tab.drawn = hashes
        return [
            gr.skip() if said is None else cards.notice(said),
            cards.works(found.active, found.failed, self._words),
            *(update if new else gr.skip() for update, new in zip(updates, changed, strict=True)),
        ]

    def _choices(self, model: Model) -> list[Any]:
        sizes = form.size_choices(model, self._words)
        size = form.pick(sizes, model.default_size)
        return [
            gr.update(choices=sizes, value=size),
            self._lengths_of(model, size, model.default_frames),
            min(model.default_steps, form.MAX_STEPS),
        ]

    def _lengths(self, tab: Tab, size: str, length: str | None) -> Any:
        return self._lengths_of(tab.model, size, int(length or 0)) if tab.model else gr.skip()

    def _lengths_of(self, model: Model, size: str | None, liked: int) -> Any:
        choices = form.length_choices(model, size or "", self._words)
        return gr.update(choices=choices, value=form.pick(choices, str(liked)))

    def _same_as(self, tab: Tab, video: Video) -> list[Any]:
        """A size or length without a name becomes a choice, too: somebody has made this video."""
        model, values = tab.model, list[Any](form.values_of(video))
        sizes = form.size_choices(model, self._words) if model else []
        lengths = form.length_choices(model, video.size, self._words) if model else []
        for choices, value, label in (
            (sizes, values[1], video.size.replace("x", "×")),
            (lengths, values[2], form.length_label(video.num_frames, self._words)),
        ):
            if value not in [known for _, known in choices]:
                choices.append((label, value))
        values[1:3] = (
            gr.update(choices=sizes, value=values[1]),
            gr.update(choices=lengths, value=values[2]),
        )
        return values


def make_page(client: Client, words: Words) -> gr.Blocks:
    """No statistics are sent to anybody."""
    blocks = gr.Blocks(title=words.title, analytics_enabled=False, fill_width=True)
    with blocks:
        Page(client, words, blocks)
    return blocks
