"""Parts that the page is made of: its style, sliders, galleries and uploads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from analysis.explorer.serve import private_settings

private_settings()
import gradio as gr  # noqa: E402 - analytics are off only if this comes after the settings

STYLE = """
.gradio-container { overflow: clip !important } /* else nothing in it can be sticky */
figure { margin: 0 } figcaption { font-size: 13px; opacity: .7 }
figure img { width: 100%; border-radius: 8px; display: block }
#face-column { position: sticky; top: 8px; align-self: flex-start }
#pictures { flex-wrap: nowrap; align-items: flex-end } #face { flex: 5 } #original { flex: 2; min-width: 0 }
.terms { display: flex; align-items: center; gap: 8px } .terms b { font-size: 22px }
.terms figure { flex: 1; max-width: 150px }
#grid img, #gif img { max-width: 100% }
.faces .grid-wrap { height: auto !important; min-height: 0 !important; max-height: none; padding: 0 }
.faces .grid-container { grid-template: none / repeat(auto-fill, minmax(44px, 1fr)); grid-auto-rows: auto; gap: 4px }
.faces button { height: auto; aspect-ratio: 1 }
@media (max-width: 800px) {
  #face-column { display: contents }
  #pictures { position: sticky; top: 0; z-index: 9; background: var(--body-background-fill) }
  #pictures figure { max-width: 180px }
  .faces .grid-container { grid-template: repeat(2, 48px) / none; grid-auto-flow: column; grid-auto-columns: 48px }
  button[role=tab] { padding: 0 6px; font-size: 13px }
}
"""


def theme() -> Any:
    """Fonts of the reader's own machine: none is loaded from elsewhere."""
    return gr.themes.Base(  # pyright: ignore[reportPrivateImportUsage]
        font=["system-ui", "sans-serif"], font_mono=["monospace"]
    )


def always(value: str) -> Callable[[], str]:
    return lambda: value


def selected(function: Callable[[int], Any]) -> Callable[..., Any]:
    """Calls a function with the index of the picture that was clicked in a gallery."""

    def call(event: gr.SelectData) -> Any:
        return function(int(event.index))

    return call


def make_slider(label: str, elem_id: str, low: int = -3, high: int = 3, value: int = 0) -> Any:
    return gr.Slider(low, high, value, step=0.05, label=label, elem_id=elem_id, min_width=200, buttons=[])


def make_upload(label: str, elem_id: str) -> Any:
    """A picture from a file or the webcam, given as the path of the uploaded file."""
    upload: Any = gr.Image(type="filepath", sources=["upload", "webcam"], label=label, height=220, elem_id=elem_id)
    # gradio would decode the file first; reading it is ours, with its limits and its sentences. (On the object, since
    # gradio writes a .pyi file beside every module that derives a class from its own.)
    upload.preprocess = lambda payload: None if payload is None else payload.path
    return upload
