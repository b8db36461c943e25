"""The page: which widgets there are, and what happens when they change."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from analysis.explorer import faces
from analysis.explorer.faces import Face
from analysis.explorer.serve import private_settings
from analysis.figures.grids import layer_swap_picture
from analysis.model.arithmetic import add_codes
from analysis.model.images import to_batch
from analysis.model.ladder import LadderModel
from pipeline.model.latents import replace_layer
from pipeline.model.pixels import from_array
from preprocess.errors import UserError

private_settings()
import gradio as gr  # noqa: E402 - analytics are off only if this comes after the settings

THIS = "this face"
QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


def build_page(model: LadderModel, align: Any = "auto") -> Any:
    """Lays out the page of a model.

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
        self.labels = [faces.direction_labels(model, layer) for layer in range(self.depth)]
        self.attributes = faces.reliable_attributes(model)
        self.stored = faces.stored_faces(model)
        self.shown_in_tabs: list[tuple[Any, Callable[..., str], list[Any], Any]] = []
        self.changes: list[Any] = []  # events after which the open tab is computed again

    def build(self) -> Any:
        with gr.Blocks(title=f"A face in {self.depth} layers", analytics_enabled=False) as page:
            gr.Markdown(
                f"# A face in {self.depth} layers\nThe model **{self.model.name}** turns a picture into {self.depth} "
                "short lists of numbers, its *layers*, and draws the picture again from them alone. Each layer holds "
                "something else. **Move a slider** to change one of them, or try your own photograph."
            )
            self.open_tab = gr.State("")
            self.base = gr.State(self._stored(0))  # before the sliders
            self.face = gr.State(self._stored(0))  # as it is shown
            with gr.Row():
                with gr.Column(scale=1, min_width=300, elem_id="face-column"):
                    self._face_column()
                with gr.Column(scale=2, min_width=300):
                    self._layers()
                    self._attributes()
                    self._swap()
                    self._arithmetic()
                    self._animate()
            self._connect()
        return page

    def _stored(self, index: int) -> Face:
        """A face that came with the model, or one of nobody."""
        return self.stored[index] if index < len(self.stored) else faces.prior_face(self.model, index)

    def _photograph(self, index: int) -> str:
        assert self.model.faces is not None
        return faces.picture_tag(from_array(self.model.faces[index : index + 1]), "photograph", 128)

    def _shown(self, face: Face, caption: str = "drawn by the model", side: int = 320) -> str:
        return faces.picture_tag(self.model.decode(face, "torch").cpu(), caption, side)

    def _row(self, captioned: Sequence[tuple[str, Face]], signs: str) -> str:
        pairs = zip(signs, captioned, strict=True)
        figures = (f"<b>{sign}</b>{self._shown(face, caption, 150)}" for sign, (caption, face) in pairs)
        return f'<div class="terms">{"".join(figures)}</div>'

    def _face_column(self) -> None:
        with gr.Row(elem_id="pictures"):
            self.picture = gr.HTML(self._shown(self._stored(0)), elem_id="face", padding=False)
            self.original = gr.HTML(self._photograph(0) if self.stored else "", elem_id="original", padding=False)
        self.message = gr.Markdown("", elem_id="message")
        with gr.Row():
            self.draw = gr.Button("Random face", elem_id="draw", min_width=120)
            self.reset = gr.Button("Reset sliders", elem_id="reset", min_width=120)
        self.gallery = self._gallery("Photographs that the model has not seen in training:", "gallery")
        self.upload = make_upload("Your own photograph (not kept)", "upload")

    def _layers(self) -> None:
        self.strengths: list[Any] = []
        self.moves: list[list[Any]] = []
        self.redraws: list[Any] = []
        found = self.model.findings.layers
        with gr.Tab("Layers"):
            for layer in reversed(range(self.depth)):
                where = {0: " (bottom: nearest to the pixels)", self.depth - 1: " (top)"}.get(layer, "")
                with gr.Accordion(f"Layer {layer}{where}", elem_id=f"layer-{layer}"):
                    if found and found[layer].sentence:
                        gr.Markdown(found[layer].sentence, elem_classes="sentence")
                    with gr.Row():
                        labels = enumerate(self.labels[layer])
                        self.moves.insert(0, [make_slider(label, f"move-{layer}-{i}") for i, label in labels])
                        self.strengths.insert(0, make_slider("strength (0 = average)", f"strength-{layer}", 0, 2, 1))
                    self.redraws.insert(0, gr.Button(f"Random layer {layer}", elem_id=f"redraw-{layer}", size="sm"))

    def _attributes(self) -> None:
        self.amounts: list[Any] = []
        if self.attributes:
            with gr.Tab("Attributes", elem_id="attributes"):
                gr.Markdown("1 is the mean difference between people with and without the attribute, on all layers.")
                with gr.Row():
                    names = self.attributes
                    self.amounts = [make_slider(name.replace("_", " "), f"attribute-{name}") for name in names]

    @property
    def sliders(self) -> list[Any]:
        """All sliders of the face, in one order."""
        return [*self.strengths, *(move for moves in self.moves for move in moves), *self.amounts]

    def _edited(self, base: Face, *values: float) -> tuple[str, Face]:
        rest = iter(values)
        strengths = [next(rest) for _ in self.labels]
        moves = [[next(rest) for _ in labels] for labels in self.labels]
        face = faces.edit_face(self.model, base, strengths, moves, dict(zip(self.attributes, rest, strict=True)))
        return self._shown(face), face

    def _connect(self) -> None:
        """Connects the sliders and the sources of faces."""
        shown = [self.picture, self.face]
        for slider in self.sliders:
            slider.input(self._edited, [self.base, *self.sliders], shown, trigger_mode="always_last", **QUICK)
        fresh = [self.base, *shown, self.original, self.message, *self.sliders]
        self.changes += [
            self.draw.click(lambda: self._fresh(faces.prior_face(self.model, _seed())), None, fresh, **QUICK),
            self.reset.click(self._reset, [self.base], [*shown, *self.sliders], **QUICK),
            self.upload.input(self._uploaded, [self.upload], [self.upload, *fresh], **QUICK),
        ]
        if self.gallery is not None:
            self.changes.append(self.gallery.select(self._chosen, None, fresh, **QUICK))
        for layer, button in enumerate(self.redraws):
            redraw = partial(self._redrawn, layer)
            button.click(redraw, [self.base, *self.sliders], [self.base, *shown], **QUICK)
        self._connect_tabs()

    def _reset(self, face: Face) -> list[Any]:
        return [self._shown(face), face, *[1.0] * self.depth, *[0.0] * (len(self.sliders) - self.depth)]

    def _fresh(self, face: Face, original: str = "", message: str = "") -> list[Any]:
        shown, face, *values = self._reset(face)
        return [face, shown, face, original, message, *values]

    def _redrawn(self, layer: int, base: Face, *values: float) -> tuple[Any, ...]:
        face = replace_layer(base, faces.prior_face(self.model, _seed()), layer)
        return (face, *self._edited(face, *values))

    def _chosen(self, event: gr.SelectData) -> list[Any]:
        return self._fresh(self.stored[event.index], self._photograph(event.index))

    def _uploaded(self, path: str | None) -> list[Any]:
        if path is None:
            return [gr.skip()] * (6 + len(self.sliders))
        face, image, message = self._read(path)
        if face is None:
            return [None, *[gr.skip()] * 4, message, *[gr.skip()] * len(self.sliders)]
        return [None, *self._fresh(face, faces.picture_tag(image, "your photograph, aligned", 128), message)]

    def _read(self, path: str) -> tuple[Face | None, Any, str]:
        """The face in an uploaded file, which is deleted, and its aligned picture; or a sentence."""
        try:
            image, notes = to_batch(path, self.model.image_processing, self.align)
            (face,) = faces.encoded_faces(self.model, image)
        except UserError as error:
            said = str(error).replace(path, "your picture").split("; --align")[0]
            return None, None, f"**{said[0].upper()}{said[1:]}.** Choose another one."
        finally:
            Path(path).unlink(missing_ok=True)
        return face, image, " ".join(note.replace(path, "your picture") for note in notes)

    def _other_face(self, elem_id: str) -> Any:
        """A second face, to be chosen or uploaded: its state."""
        other = gr.State(self._stored(1))
        gallery = self._gallery("The other face:", f"{elem_id}-gallery")
        with gr.Accordion("or your own photograph", open=False):
            upload = make_upload("not kept", f"{elem_id}-upload")
            said = gr.Markdown("")
        if gallery is not None:
            self.changes.append(gallery.select(self._chosen_other, None, [other], **QUICK))
        self.changes.append(upload.input(self._read_term, [upload, other], [upload, other, said], **QUICK))
        return other

    def _chosen_other(self, event: gr.SelectData) -> Face:
        return self.stored[event.index]

    def _read_term(self, path: str | None, before: Face | None) -> tuple[Any, Face | None, str]:
        if path is None:
            return gr.skip(), before, ""
        face, _, message = self._read(path)
        return None, before if face is None else face, message or "Your photograph is used."

    def _connect_tabs(self) -> None:
        """Computes what a tab shows when it is opened, and again when anything changes while it is open."""
        inputs = [item for _, _, items, _ in self.shown_in_tabs for item in items]
        results = [result for *_, result in self.shown_in_tabs]

        def compute_open(opened: str, *values: Any) -> list[Any]:
            rest, computed = list(values), []
            for tab, compute, items, _ in self.shown_in_tabs:
                own = [rest.pop(0) for _ in items]
                computed.append(compute(*own) if tab.label == opened else gr.skip())
            return computed if len(computed) > 1 else computed[0]

        for change in self.changes:
            change.then(compute_open, [self.open_tab, *inputs], results, **QUICK)
        for tab in {id(tab): tab for tab, *_ in self.shown_in_tabs}.values():
            opened = tab.select(partial(lambda label: label, tab.label), None, [self.open_tab], **QUICK)
            opened.then(compute_open, [self.open_tab, *inputs], results, **QUICK)

    def _swap(self) -> None:
        with gr.Tab("Swap") as tab:
            gr.Markdown("Give this face some layers of another face.")
            other = self._other_face("swap")
            names = [f"layer {layer}" for layer in range(self.depth)]
            layers = gr.CheckboxGroup(names, value=names[-1:], label="from the other face", elem_id="swap-layers")
            result = gr.HTML("", elem_id="swapped")
            gr.Markdown("This face with one layer of each of eight others:")
            grid = gr.HTML("", elem_id="grid")

        def swapped(face: Face, second: Face, chosen: Sequence[str]) -> str:
            mixed = [y if name in chosen else x for name, x, y in zip(names, face, second, strict=True)]
            terms = [(THIS, face), ("the other face", second), (f"with its {' and '.join(sorted(chosen))}", mixed)]
            return self._row(terms, " +=")

        def swap_grid(face: Face) -> str:
            codes = [torch.cat(layer) for layer in zip(face, *others, strict=True)]
            return faces.image_tag(layer_swap_picture(self.model.vlae, codes, cell=80), "this face with others' layers")

        others = [self._stored(index) for index in range(1, 9)]
        self.changes.append(layers.input(lambda: None, **QUICK))
        self.shown_in_tabs.append((tab, swapped, [self.face, other, layers], result))
        self.shown_in_tabs.append((tab, swap_grid, [self.face], grid))

    def _arithmetic(self) -> None:
        groups = self.model.groups
        stored = range(len(self.stored))
        choices: list[Any] = [THIS, *((name.replace("_", " "), name) for name in groups)]
        choices += [(f"photograph {i + 1}", i) for i in stored]
        defaults: list[Any] = [*groups][:2] if len(groups) > 1 else [*stored][:2] if len(stored) > 1 else [THIS, THIS]
        slots, states = [], []
        with gr.Tab("Arithmetic") as tab:
            gr.Markdown("a − b + c: the face c with what a has and b lacks. A group is the mean of many people.")
            with gr.Row():
                for name, default in zip("abc", [*defaults, THIS], strict=True):
                    with gr.Column(min_width=220):  # a phone shows one term in a row
                        slots.append(gr.Dropdown(choices, value=default, label=name, elem_id=f"term-{name}"))
                        upload = make_upload("or a photograph (not kept)", f"term-upload-{name}")
                        states.append(gr.State(None))
                        said = gr.Markdown("")
                        own = [states[-1], said]
                        self.changes.append(slots[-1].input(lambda: (None, ""), None, own, **QUICK))
                        self.changes.append(
                            upload.input(self._read_term, [upload, states[-1]], [upload, *own], **QUICK)
                        )
            result = gr.HTML("", elem_id="sum")

        def term(choice: Any, uploaded: Face | None, face: Face) -> Face:
            if uploaded is not None or choice == THIS:
                return uploaded or face
            return [z.cpu() for z in groups[choice]] if choice in groups else self._stored(choice)

        def add(face: Face, *values: Any) -> str:
            a, b, c = (term(choice, uploaded, face) for choice, uploaded in zip(values[:3], values[3:], strict=True))
            return self._row([("a", a), ("b", b), ("c", c), ("a − b + c", add_codes(a, b, c))], " −+=")

        self.shown_in_tabs.append((tab, add, [self.face, *slots, *states], result))

    def _animate(self) -> None:
        names = ["all layers", *(f"layer {layer}" for layer in range(self.depth))]
        with gr.Tab("Animate") as tab:
            gr.Markdown("From this face to another and back, as a GIF.")
            other = self._other_face("gif")
            layers = gr.Radio(names, value=names[0], label="what moves", elem_id="gif-layers")
            result = gr.HTML("", elem_id="gif")

        def animate(face: Face, second: Face, moving: str) -> str:
            chosen = None if moving == names[0] else [names.index(moving) - 1]
            return faces.gif_tag(faces.interpolation_gif(self.model, face, second, chosen))

        self.changes.append(layers.input(lambda: None, **QUICK))
        self.shown_in_tabs.append((tab, animate, [self.face, other, layers], result))

    def _gallery(self, caption: str, elem_id: str) -> Any:
        """Small pictures to choose from; None where the model came without any."""
        if self.model.faces is None:
            return None
        gr.Markdown(caption)
        pictures: Any = [Image.fromarray(face.squeeze()) for face in self.model.faces]
        return gr.Gallery(
            pictures,
            show_label=False,
            allow_preview=False,
            elem_id=elem_id,
            elem_classes="faces",
            format="png",
            interactive=False,
            buttons=[],
        )


def make_slider(label: str, elem_id: str, low: int = -3, high: int = 3, value: int = 0) -> Any:
    return gr.Slider(low, high, value, step=0.05, label=label, elem_id=elem_id, min_width=200, buttons=[])


def make_upload(label: str, elem_id: str) -> Any:
    """A picture from a file or the webcam, given as the path of the uploaded file."""
    upload: Any = gr.Image(type="filepath", sources=["upload", "webcam"], label=label, height=220, elem_id=elem_id)
    # gradio would decode the file first; reading it is ours, with its limits and its sentences. (On the object, since
    # gradio writes a .pyi file beside every module that derives a class from its own.)
    upload.preprocess = lambda payload: None if payload is None else payload.path
    return upload


def _seed() -> int:
    return secrets.randbelow(1 << 31)
