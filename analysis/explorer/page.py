"""The page: which widgets there are, and what happens when they change."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from analysis.explorer import faces
from analysis.explorer.faces import Face
from analysis.explorer.serve import private_settings
from analysis.model.ladder import LadderModel
from preprocess.errors import UserError

private_settings()
import gradio as gr  # noqa: E402 - analytics are off only if this comes after the settings

STYLE = """
#face-column { position: sticky; top: 8px; align-self: flex-start }
#face img { width: 100%; max-width: 320px; border-radius: 8px }
.small img { width: 128px; border-radius: 6px }
#grid img, #gif img { max-width: 100% }
"""
THIS = "this face"
QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
EMPTY = "<p>Choose layers, or another face.</p>"


def theme() -> Any:
    """Fonts of the reader's own machine: none is loaded from elsewhere."""
    return gr.themes.Base(  # pyright: ignore[reportPrivateImportUsage]
        font=["system-ui", "sans-serif"], font_mono=["monospace"]
    )


def build_page(model: LadderModel, align: Any = "auto") -> Any:
    """Lays the page out.

    Args:
        model: Everything on the page is about it.
        align: How uploaded pictures are aligned: "auto", "on" or "off".
    """
    return _Page(model, align).build()


class _Page:
    """Widgets that several parts of the page share."""

    def __init__(self, model: LadderModel, align: Any) -> None:
        self.model, self.align = model, align
        self.depth = len(model.sizes)
        self.counts = [len(faces.direction_labels(model, layer)) for layer in range(self.depth)]
        self.attributes = faces.reliable_attributes(model)

    def build(self) -> Any:
        """The whole page."""
        with gr.Blocks(title=f"{self.model.name}: layers", analytics_enabled=False) as page:
            gr.Markdown(
                f"# {self.model.name}\nEach layer of the ladder holds something different. Move a slider and look."
            )
            self.base = gr.State(self._first_face())  # before the sliders
            self.face = gr.State(self._first_face())  # as it is shown
            with gr.Row():
                with gr.Column(scale=1, min_width=330, elem_id="face-column"):
                    self._face_column()
                with gr.Column(scale=2):
                    self._tabs()
            self._connect()
        return page

    def _first_face(self) -> Face:
        return faces.stored_face(self.model, 0)[0] if self.model.faces is not None else faces.prior_face(self.model, 0)

    def _face_column(self) -> None:
        self.picture = gr.HTML(self._shown(self._first_face()), elem_id="face")
        self.message = gr.Markdown("", elem_id="message")
        self.original = gr.HTML("", elem_id="original", elem_classes="small")
        with gr.Row():
            self.draw = gr.Button("Draw a face", elem_id="draw")
            self.reset = gr.Button("Sliders to 0", elem_id="reset")
        if self.model.faces is not None:
            self.gallery = _gallery(self.model, "Photographs that the model has not seen in training", "gallery")
        self.upload = _upload("Your own photograph (not kept)", "upload")

    def _tabs(self) -> None:
        self.strengths: list[Any] = []
        self.moves: list[list[Any]] = []
        self.redraws: list[Any] = []
        with gr.Tab("Layers"):
            for layer in reversed(range(self.depth)):
                self._layer(layer)
        self.strengths.reverse()
        self.moves.reverse()
        self.redraws.reverse()
        self.amounts: list[Any] = []
        if self.attributes:
            with gr.Tab("Attributes", elem_id="attributes"):
                for name in self.attributes:
                    self.amounts.append(gr.Slider(-3, 3, 0, step=0.1, label=name.replace("_", " ")))
        if self.model.faces is not None:
            with gr.Tab("Swap layers"):
                self._swap()
        with gr.Tab("Arithmetic"):
            self._arithmetic()
        if self.model.faces is not None:
            with gr.Tab("Interpolate"):
                self._interpolate()

    def _layer(self, layer: int) -> None:
        found = self.model.findings.layers
        where = " (bottom: nearest to the pixels)" if layer == 0 else " (top)" if layer == self.depth - 1 else ""
        with gr.Accordion(f"Layer {layer}{where}", open=layer >= self.depth - 2, elem_id=f"layer-{layer}"):
            if found and found[layer].sentence:
                gr.Markdown(found[layer].sentence, elem_classes="sentence")
            labels = faces.direction_labels(self.model, layer)
            self.moves.append(
                [
                    gr.Slider(-3, 3, 0, step=0.1, label=label, elem_id=f"move-{layer}-{i}")
                    for i, label in enumerate(labels)
                ]
            )
            with gr.Row():
                label = "strength: 1 = as it is, 0 = the layer's mean"
                self.strengths.append(gr.Slider(0, 2, 1, step=0.05, label=label, elem_id=f"strength-{layer}"))
                self.redraws.append(gr.Button(f"Draw layer {layer} from the prior", elem_id=f"redraw-{layer}"))

    def _shown(self, face: Face) -> str:
        return faces.picture_tag(faces.decode_face(self.model, face), "the face")

    @property
    def sliders(self) -> list[Any]:
        """All sliders of the face, in one order."""
        return [*self.strengths, *(move for layer in self.moves for move in layer), *self.amounts]

    def _values(self) -> list[float]:
        return [1.0] * self.depth + [0.0] * (sum(self.counts) + len(self.attributes))

    def _edited(self, base: Face, *values: float) -> tuple[str, Face]:
        rest = list(values[self.depth :])
        moves = [[rest.pop(0) for _ in range(count)] for count in self.counts]
        amounts = dict(zip(self.attributes, rest, strict=True))
        face = faces.edit_face(self.model, base, values[: self.depth], moves, amounts)
        return self._shown(face), face

    def _connect(self) -> None:
        """Connects the sliders and the sources of faces."""
        shown = [self.picture, self.face]
        for slider in self.sliders:
            slider.input(self._edited, [self.base, *self.sliders], shown, trigger_mode="always_last", **QUICK)
        fresh = [self.base, *shown, self.original, self.message, *self.sliders]
        self.draw.click(lambda: self._fresh(faces.prior_face(self.model, _seed())), None, fresh, **QUICK)
        self.reset.click(self._fresh, [self.base], fresh, **QUICK)
        for layer, button in enumerate(self.redraws):
            button.click(self._redrawer(layer), [self.base, *self.sliders], [self.base, *shown], **QUICK)
        if self.model.faces is not None:
            self.gallery.select(self._chosen, None, fresh, **QUICK)
        self.upload.input(self._uploaded, [self.upload, self.base], [self.upload, *fresh], **QUICK)

    def _fresh(self, face: Face, original: str = "", message: str = "") -> list[Any]:
        return [face, self._shown(face), face, original, message, *self._values()]

    def _redrawer(self, layer: int) -> Callable[..., Any]:
        def redraw(base: Face, *values: float) -> tuple[Any, ...]:
            face = faces.redraw_layer(self.model, base, layer, _seed())
            return (face, *self._edited(face, *values))

        return redraw

    def _chosen(self, event: gr.SelectData) -> list[Any]:
        face, image = faces.stored_face(self.model, int(event.index))
        return self._fresh(
            face, faces.picture_tag(image, "the photograph", 128), "The photograph is below the model's own picture."
        )

    def _uploaded(self, path: str | None, base: Face) -> list[Any]:
        if path is None:
            return [gr.skip()] * (6 + len(self.sliders))
        found, image, message = self._read(path)
        if found is None:
            return [None, *self._fresh(base, "", message)]
        return [None, *self._fresh(found, faces.picture_tag(image, "your photograph, aligned", 128), message)]

    def _read(self, path: str) -> tuple[Face | None, Any, str]:
        """The face in an uploaded file, which is deleted; or a sentence."""
        try:
            face, image, notes = faces.uploaded_face(self.model, Path(path), self.align)
        except UserError as error:
            return None, None, f"**{str(error).replace(path, 'Your picture')}**"
        finally:
            Path(path).unlink(missing_ok=True)
        said = " ".join(note.replace(path, "your picture") for note in notes)
        return face, image, said or "Your photograph, as the model sees it, is below the model's own picture."

    def _swap(self) -> None:
        gr.Markdown("Layers of another face in this one. The grid: this face with one layer of each of eight others.")
        other = gr.State(1)
        gallery = _gallery(self.model, "The other face", "swap-gallery", 8)
        layers = gr.CheckboxGroup(
            [f"layer {i}" for i in range(self.depth)], label="from the other face", elem_id="swap-layers"
        )
        result = gr.HTML(EMPTY, elem_id="swapped", elem_classes="small")
        grid_button = gr.Button("Show the grid", elem_id="grid-button")
        grid = gr.HTML("", elem_id="grid")

        def swapped(face: Face, index: int, chosen: Sequence[str]) -> str:
            picked = [int(name.split()[1]) for name in chosen]
            mixed = faces.swap_faces(face, faces.stored_face(self.model, index)[0], picked)
            return faces.picture_tag(faces.decode_face(self.model, mixed), "the face with layers of the other", 256)

        def chosen(event: gr.SelectData) -> int:
            return int(event.index)

        inputs = [self.face, other, layers]
        gallery.select(chosen, None, [other], **QUICK).then(swapped, inputs, [result], **QUICK)
        layers.input(swapped, inputs, [result], **QUICK)
        count = min(9, len(self.model.faces))
        grid_button.click(
            lambda face: faces.image_tag(
                faces.swap_grid(self.model, face, range(1, count)), "one face, layers of others"
            ),
            [self.face],
            [grid],
            **QUICK,
        )

    def _arithmetic(self) -> None:
        gr.Markdown("a − b + c: the face c with what a has and b lacks.")
        groups = self.model.groups
        stored = [f"photograph {i + 1}" for i in range(len(self.model.faces) if self.model.faces is not None else 0)]
        choices = [THIS, *groups, *stored]
        defaults = [choices[min(i, len(choices) - 1)] for i in (1, 2, 0)]
        slots, states = [], []
        with gr.Row():
            for name, default in zip("abc", defaults, strict=True):
                with gr.Column(min_width=150):
                    slots.append(gr.Dropdown(choices, value=default, label=name, elem_id=f"term-{name}"))
                    upload = _upload("or a photograph (not kept)", f"term-upload-{name}")
                    states.append(gr.State(None))
                    said = gr.Markdown("")
                    changed = [upload, states[-1], said]
                    upload.input(self._term_uploaded, [upload, states[-1]], changed, **QUICK)
                    slots[-1].input(lambda: None, None, [states[-1]], **QUICK)
        button = gr.Button("a − b + c", elem_id="add")
        result = gr.HTML("", elem_id="sum", elem_classes="small")

        def term(choice: str, uploaded: Face | None, face: Face) -> Face:
            if uploaded is not None:
                return uploaded
            if choice == THIS:
                return face
            if choice in groups:
                return faces.as_face(groups[choice])
            return faces.stored_face(self.model, stored.index(choice))[0]

        def add(face: Face, *values: Any) -> str:
            terms = [term(choice, uploaded, face) for choice, uploaded in zip(values[:3], values[3:], strict=True)]
            shown = [*terms, faces.add_faces(*terms)]
            tags = [faces.picture_tag(faces.decode_face(self.model, each), "a term", 128) for each in shown]
            row = " ".join(f"<b>{sign}</b> {tag}" for sign, tag in zip(("", "−", "+", "="), tags, strict=True))
            return f'<div style="display: flex; align-items: center; gap: 8px; flex-wrap: wrap">{row}</div>'

        button.click(add, [self.face, *slots, *states], [result], **QUICK)

    def _term_uploaded(self, path: str | None, before: Face | None) -> tuple[Any, Face | None, str]:
        if path is None:
            return gr.skip(), before, ""
        face, _, message = self._read(path)
        return None, face, message if face is None else "The photograph is used."

    def _interpolate(self) -> None:
        gr.Markdown("From this face to another and back.")
        other = gr.State(1)
        gallery = _gallery(self.model, "The other face", "gif-gallery", 8)
        names = ["all layers", *(f"layer {i}" for i in range(self.depth))]
        layers = gr.Radio(names, value=names[0], label="what moves", elem_id="gif-layers")
        button = gr.Button("Make the GIF", elem_id="gif-button")
        result = gr.HTML("", elem_id="gif")

        def animate(face: Face, index: int, moving: str) -> str:
            chosen = None if moving == names[0] else [names.index(moving) - 1]
            content = faces.interpolation_gif(self.model, face, faces.stored_face(self.model, index)[0], chosen)
            return faces.gif_tag(content)

        def picked(event: gr.SelectData) -> int:
            return int(event.index)

        gallery.select(picked, None, [other], **QUICK).then(animate, [self.face, other, layers], [result], **QUICK)
        button.click(animate, [self.face, other, layers], [result], **QUICK)


def _seed() -> int:
    return secrets.randbelow(1 << 31)


def _gallery(model: LadderModel, label: str, elem_id: str, columns: int = 4) -> Any:
    from PIL import Image  # noqa: PLC0415

    pictures = [Image.fromarray(face.squeeze()) for face in model.faces]
    return gr.Gallery(
        pictures,
        label=label,
        columns=columns,
        height=180,
        allow_preview=False,
        elem_id=elem_id,
        format="png",
        interactive=False,
    )


def _upload(label: str, elem_id: str) -> Any:
    """A picture from a file or the webcam, given as the path of the uploaded file, whatever is in it."""
    upload: Any = gr.Image(type="filepath", sources=["upload", "webcam"], label=label, height=160, elem_id=elem_id)
    # gradio would decode the file first; reading it is ours, with its limits and its sentences. (On the object, since
    # gradio writes a .pyi file beside every module that derives a class from its own.)
    upload.preprocess = lambda payload: None if payload is None else payload.path
    return upload
