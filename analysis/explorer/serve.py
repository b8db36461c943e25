"""Starts the page: on this machine only unless asked, without analytics, tunnels or anything from elsewhere."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocess.errors import UsageError

if TYPE_CHECKING:
    from analysis.model.ladder import LadderModel

MAX_UPLOAD = "20mb"
# the browser may load nothing from other machines, even if a library's page asks for it
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; base-uri 'self'"
UPLOAD_SECONDS = 60  # after which an upload that was not used is deleted
_EXTERNAL = re.compile(
    rb"<(?:meta|link)\b[^>]*https?://(?!localhost|127\.0\.0\.1)[^>]*>"
    rb"|<script\b[^>]*\bsrc=[\"']https?://[^>]*></script>"
    rb"|https://raw\.githubusercontent\.com/[^\"'\\ ]*"  # examples in the description of the page's API
)


def check_gradio() -> None:
    """Sees that gradio is there, before a model is loaded.

    Raises:
        UsageError: It is not.
    """
    private_settings()
    try:
        import gradio  # noqa: F401, PLC0415
    except ImportError:
        raise UsageError("explore needs gradio: pip install 'mmd-vlae[explore]'") from None


def private_settings() -> Path:
    """Switches analytics off and gives uploads a folder of their own, which it returns; call it before gradio loads."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if "MMD_VLAE_UPLOADS" not in os.environ:
        os.environ["MMD_VLAE_UPLOADS"] = tempfile.mkdtemp(prefix=f"mmd-vlae-explore-{os.getpid()}-")
        os.environ["GRADIO_TEMP_DIR"] = os.environ["MMD_VLAE_UPLOADS"]
        atexit.register(shutil.rmtree, os.environ["MMD_VLAE_UPLOADS"], ignore_errors=True)
    return Path(os.environ["MMD_VLAE_UPLOADS"])


class LocalOnly:
    """ASGI middleware: a content security policy on every answer, and no addresses of other machines in the page."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Passes a request on; changes its answer's head, and the body of the page itself."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        page = scope["path"] == "/"
        start: dict[str, Any] = {}
        body = bytearray()

        async def changed(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = [(k, v) for k, v in message["headers"] if not (page and k.lower() == b"content-length")]
                message["headers"] = [*headers, (b"content-security-policy", POLICY.encode())]
                if page:
                    start.update(message)
                    return
            elif page:
                body.extend(message.get("body", b""))
                if message.get("more_body"):
                    return
                await send(start)
                message = {"type": "http.response.body", "body": _EXTERNAL.sub(b"", bytes(body))}
            await send(message)

        await self.app(scope, receive, changed)


def serve(model: LadderModel, host: str, port: int, browser: bool, align: Any) -> None:
    """Serves the page until Ctrl-C or SIGTERM. The folder of uploads is removed at the end.

    Raises:
        UsageError: The port is taken.
    """
    private_settings()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # else the folder of uploads would stay
    import numpy as np  # noqa: PLC0415

    from analysis.explorer.page import build_page  # noqa: PLC0415
    from preprocess.images.align import find_faces, is_installed  # noqa: PLC0415

    if align != "off" and is_installed():
        find_faces(np.zeros((64, 64, 3), np.uint8))  # loads the detector, before two uploads do so at once
    launch(build_page(model, align), host, port, browser)


def launch(page: Any, host: str, port: int, browser: bool) -> None:
    """Starts a page that ``build_page`` made and waits. ``port`` 0 = any free one from 7860 up.

    Raises:
        UsageError: The port is taken.
    """
    import gradio  # noqa: PLC0415
    from starlette.middleware import Middleware  # noqa: PLC0415

    theme: Any = gradio.themes.Base  # pyright: ignore[reportPrivateImportUsage]
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port or None,
            inbrowser=browser,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=MAX_UPLOAD,
            footer_links=[],
            enable_monitoring=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            theme=theme(font=["system-ui", "sans-serif"], font_mono=["monospace"]),  # of the reader's own machine
            css_paths=[Path(__file__).with_name("style.css")],
            app_kwargs={"middleware": [Middleware(LocalOnly)]},
        )
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port} ({error}); name another --port") from None
    threading.Thread(target=_delete_uploads, args=(private_settings(),), daemon=True).start()
    print(f"open {address} in a browser; Ctrl-C ends", flush=True)
    page.block_thread()


def _delete_uploads(folder: Path) -> None:
    """Deletes files that came after the start and were not used: an upload that is used is deleted at once."""
    kept = {path for path in folder.rglob("*") if path.is_file()}
    while folder.is_dir():
        time.sleep(UPLOAD_SECONDS / 4)
        for path in folder.rglob("*"):
            if path.is_file() and path not in kept and path.stat().st_mtime < time.time() - UPLOAD_SECONDS:
                path.unlink(missing_ok=True)
