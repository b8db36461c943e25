"""A page in headless Chromium at a given width, with a script that answers a question about it."""

import html
import json
import shutil
import subprocess
from pathlib import Path

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str:
    """The browser; skips the test where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on this machine")
    return found


def run_chromium(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """Runs Chromium with a profile in ``folder``."""
    flags = [*FLAGS, f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr"]
    return subprocess.run([chromium(), *flags, *words], capture_output=True, text=True, timeout=180, check=False)


def ask(page: str, script: str, width: int, folder: Path):
    """Shows ``page`` in a frame ``width`` pixels wide (a window cannot be narrower than 500) and runs a script.

    ``script`` is the body of a function of (document, window); what it returns is given back.
    """
    frame = f'<iframe id="frame" style="border:0;width:{width}px;height:900px" srcdoc="{html.escape(page)}"></iframe>'
    outer = f"""<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">{frame}<script>
    const frame = document.getElementById("frame");
    frame.addEventListener("load", () => {{
      const answer = ((document, window) => {{ {script} }})(frame.contentDocument, frame.contentWindow);
      const text = document.createElement("pre");
      text.id = "answer";
      text.textContent = JSON.stringify(answer);
      document.body.replaceChildren(text);
    }});</script></body>"""
    path = folder / "outer.html"
    path.write_text(outer, encoding="utf-8")
    done = run_chromium(folder, "--dump-dom", f"file://{path}")
    assert "CONSOLE" not in done.stderr, done.stderr
    start = done.stdout.index('<pre id="answer">') + len('<pre id="answer">')
    return json.loads(html.unescape(done.stdout[start : done.stdout.index("</pre>", start)]))


OVERFLOWS = """
const scrolls = e => { const o = window.getComputedStyle(e).overflowX; return o === "auto" || o === "scroll"; };
const name = e => `${e.tagName}.${e.className} ${e.textContent.trim().slice(0, 40)}`;
for (const fold of document.querySelectorAll("details")) fold.open = true;
const found = [];
const whole = document.documentElement.scrollWidth;
if (whole > window.innerWidth) found.push(`page ${whole}`);
for (const e of document.body.querySelectorAll("*")) {
  const box = e.getBoundingClientRect(), parent = e.parentElement.getBoundingClientRect();
  if (!box.width || e.closest("script, style")) continue;
  let inside = false;
  for (let p = e.parentElement; p; p = p.parentElement) if (scrolls(p)) inside = true;
  if (inside || window.getComputedStyle(e).position === "absolute") continue;
  const outside = box.right > parent.right + 1 || box.left < parent.left - 1;
  if (outside) found.push(`${name(e)} ${box.right} > ${parent.right}`);
  const full = e.clientWidth && e.scrollWidth > e.clientWidth + 1 && !scrolls(e);
  if (full) found.push(`${name(e)} holds ${e.scrollWidth} in ${e.clientWidth}`);
}
return found;
"""
"""A script for ``ask``: lists every element that is wider than its container, but for those that scroll."""
