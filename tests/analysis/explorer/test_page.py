"""The page of `analysis explore` in a real browser: sliders, uploads, swaps, arithmetic, the GIF."""

import base64
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import BIN

pytest.importorskip("gradio")
webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

pytestmark = pytest.mark.skipif(
    shutil.which("chromium") is None or shutil.which("chromedriver") is None, reason="needs Debian's chromium-driver"
)
WAIT = 60  # seconds: the machine may be busy


@pytest.fixture(scope="module")
def server(export_folder, tmp_path_factory):
    """Address of a page that serves an exported model."""
    log = tmp_path_factory.mktemp("explore") / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [BIN / "analysis", "explore", export_folder, "--port", "0", "--no-browser"], stdout=file, stderr=file
        )
    try:
        address = None
        for _ in range(1200):
            if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
                address = found[0]
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.5)
        assert address, log.read_text()
        yield address
    finally:
        process.terminate()
        process.wait(30)
        assert not list(Path(tempfile.gettempdir()).glob(f"mmd-vlae-explore-{process.pid}-*")), "uploads are removed"


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1400"):
        options.add_argument(word)
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def page(server, browser):
    browser.get(server)
    wait(browser, lambda: source(browser, "#face img"))
    return browser


def wait(browser, condition):
    return WebDriverWait(browser, WAIT, ignored_exceptions=(Exception,)).until(lambda _: condition())


def source(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector).get_attribute("src")


def click(browser, selector):
    element = wait(browser, lambda: browser.find_element(By.CSS_SELECTOR, selector))
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].click()", element)
    return element


def open_tab(browser, name):
    found = "button[role=tab]"
    tab = wait(browser, lambda: next(t for t in browser.find_elements(By.CSS_SELECTOR, found) if t.text == name))
    browser.execute_script("arguments[0].click()", tab)


def test_a_slider_changes_the_picture_and_the_button_brings_it_back(page):
    before = source(page, "#face img")
    slider = wait(page, lambda: page.find_element(By.CSS_SELECTOR, "#move-1-0 input[type=range]"))
    slider.send_keys(Keys.ARROW_RIGHT * 15)
    changed = wait(page, lambda: source(page, "#face img") != before and source(page, "#face img"))
    assert changed.startswith("data:image/png;base64,")
    click(page, "#reset")
    wait(page, lambda: source(page, "#face img") == before)


def test_drawing_a_layer_from_the_prior_changes_the_picture(page):
    before = source(page, "#face img")
    click(page, "#redraw-1")
    wait(page, lambda: source(page, "#face img") != before)


def test_an_uploaded_photograph_is_shown_aligned_and_is_not_kept(page, tmp_path):
    photograph = tmp_path / "me.png"
    Image.effect_noise((178, 218), 60).convert("RGB").save(photograph)
    before = source(page, "#face img")
    wait(page, lambda: page.find_element(By.CSS_SELECTOR, "#upload input[type=file]")).send_keys(str(photograph))
    wait(page, lambda: source(page, "#face img") != before)
    assert not list(Path(tempfile.gettempdir()).glob("mmd-vlae-explore-*/*/me.png")), (
        "the upload is deleted once it was read"
    )


def test_a_file_that_is_not_a_picture_gives_a_sentence(page, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"this is text")
    wait(page, lambda: page.find_element(By.CSS_SELECTOR, "#upload input[type=file]")).send_keys(str(broken))
    said = wait(page, lambda: page.find_element(By.CSS_SELECTOR, "#message").text)
    assert "Your picture is not a readable image" in said and "/tmp" not in said


def test_layers_are_swapped_with_another_face_and_the_grid_is_shown(page):
    open_tab(page, "Swap")
    wait(page, lambda: source(page, "#grid img"))
    before = source(page, "#swapped figure:last-child img")
    click(page, "#swap-layers input[type=checkbox]")
    after = wait(page, lambda: (now := source(page, "#swapped figure:last-child img")) != before and now)
    click(page, "#swap-gallery .gallery-item:nth-child(4) button")
    wait(page, lambda: source(page, "#swapped figure:last-child img") != after)


def test_arithmetic_shows_three_terms_and_the_sum_of_the_face_that_is_shown(page):
    open_tab(page, "Arithmetic")
    wait(page, lambda: len(page.find_elements(By.CSS_SELECTOR, "#sum img")) == 4)
    before = source(page, "#sum figure:last-child img")
    click(page, "#draw")
    wait(page, lambda: source(page, "#sum figure:last-child img") != before)


def test_the_gif_is_downloaded(page):
    open_tab(page, "Animate")
    link = wait(page, lambda: page.find_element(By.CSS_SELECTOR, "#gif-link"))
    assert link.get_attribute("download") == "interpolation.gif"
    content = base64.b64decode(link.get_attribute("href").split(",", 1)[1])
    assert content.startswith(b"GIF89a") and len(content) > 1000


def test_the_face_stays_in_view_while_sliders_are_moved(page):
    page.execute_script("window.scrollTo(0, 400)")
    assert page.execute_script("return document.querySelector('#pictures').getBoundingClientRect().top") >= 0


def test_nothing_comes_from_another_machine(page, server):
    with urllib.request.urlopen(server) as answer:
        body, policy = answer.read().decode(), answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    elsewhere = [url for url in re.findall(r"https?://[^\"'\s<\\]+", body) if not url.startswith(server)]
    assert elsewhere == []
    asked = [line["message"] for line in page.get_log("performance") if "requestWillBeSent" in line["message"]]
    urls = {url for message in asked for url in re.findall(r'"url":"(https?://[^"]+)"', message)}
    assert urls and all(url.startswith(server) for url in urls), urls
