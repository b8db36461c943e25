"""The page: complete, without gaps where something is absent, and readable at two widths and on paper."""

import re

import pytest

from analysis.figures.gallery import CAPTIONS, Gallery, Panel
from analysis.report.page import render, slug
from tests.analysis.report.browser import OVERFLOWS, ask, run_chromium
from tests.analysis.report.made import OPTIONAL, whole_report


def anchors(page):
    return set(re.findall(r'id="([^"]+)"', page))


@pytest.mark.parametrize("without", [(), *((key,) for key in OPTIONAL), OPTIONAL])
def test_absent_fields_leave_no_gap_on_the_page(without):
    page = render([whole_report(without=without)], None)
    targets = set(re.findall(r'href="#([^"]+)"', page))
    assert targets and targets <= anchors(page)
    numbers = re.findall(r"<h2>([0-9]+)\. ", page)
    assert numbers == [str(i) for i in range(1, len(numbers) + 1)]
    for key in ("disentanglement", "classifier"):
        assert (f'id="all-{key}"' in page) == (key not in without)
    if set(without) >= {"attributes", "factors", "labels"}:
        assert "cannot be named: the images have no annotations" in page
        assert "“All scores of the probes” needs annotations that vary" in page
    else:
        assert "better than every other layer" in page


def test_a_page_without_figures_that_need_annotations_or_a_log():
    report = whole_report(without=OPTIONAL)
    kept = {"swaps", "manifold", "reconstructions", "samples", "nearest"}
    report.gallery = Gallery({key: figure for key, figure in report.gallery.figures.items() if key in kept})
    page = render([report], None)
    assert "Training</h2>" not in page and "Arithmetic and edits</h2>" not in page and "yourself</h2>" not in page
    figures = [int(number) for number in re.findall(r"<b>Figure ([0-9]+)\.", page)]
    assert figures == list(range(1, len(kept) + 1))


def test_figures_are_numbered_in_the_order_of_the_page_and_captions_are_said_once():
    page = render([whole_report()], None)
    assert [int(n) for n in re.findall(r"<b>Figure ([0-9]+)\.", page)] == list(range(1, len(CAPTIONS) + 1))
    two = render(
        [whole_report("a"), whole_report("b")], Panel("comparison.png", "", whole_report().gallery.panels[0].image)
    )
    assert page.count("Look along a row") == two.count("Look along a row") == 1
    assert {"a-summary", "b-summary", "side-by-side"} <= anchors(two)
    assert "2.1. In short" in two and "3.1. In short" in two


def test_names_from_the_data_are_text_and_never_markup():
    page = render([whole_report()], None)
    assert "<b>odd" not in page and "&lt;b&gt;odd" in page
    assert slug("runs/../x y") == "runs-x-y" and slug("///") == "run"


def test_nothing_is_loaded_from_elsewhere_and_it_can_be_cited():
    page = render([whole_report()], None)
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert "@article{xu2018generate" in page and "@inproceedings{zhao2017learning" in page


@pytest.mark.parametrize("width", [1400, 390])
def test_no_element_is_wider_than_its_container(width, tmp_path):
    assert ask(render([whole_report()], None), OVERFLOWS, width, tmp_path) == []


def test_the_overflow_check_finds_a_wide_element(tmp_path):
    page = '<!DOCTYPE html><body style="margin:0"><div><p style="width:600px">wide</p></div></body>'
    assert ask(page, OVERFLOWS, 390, tmp_path)


def test_sliders_faces_sorting_and_folds_work(tmp_path):
    script = """
    const range = document.querySelector("[data-layer='1'] input[data-slider='1']");
    range.value = 0;
    range.dispatchEvent(new window.Event("input", {bubbles: true}));
    const panel = range.closest("[data-layer]");
    const shown = panel.querySelector(".frame img:not([hidden])");
    const second = document.querySelectorAll(".faces input")[1];
    second.click();
    const movers = [...document.querySelectorAll(".movers")].map(m => m.hidden);
    const button = document.querySelector("#layers table.sortable thead tr:last-child th:nth-child(2) button");
    button.click();
    const column = [...button.closest("table").tBodies[0].rows].map(r => parseFloat(r.cells[1].textContent));
    document.querySelector("nav.contents a[href='#all-codes']").click();
    const strips = () => [...document.querySelectorAll(".movers:not([hidden]) .frame img")].filter(
      i => window.getComputedStyle(i).display !== "none").length;
    const onScreen = strips();
    window.dispatchEvent(new window.Event("beforeprint"));
    const folds = [...document.querySelectorAll("details")].every(d => d.open);
    const broken = [...document.images].filter(i => i.complete && !i.naturalWidth).length;
    const printed = [onScreen, strips()];
    const {slider} = shown.dataset, position = shown.style.objectPosition;
    return {slider, position, movers, column, folds, broken, printed};
    """
    answer = ask(render([whole_report()], None), script, 1400, tmp_path)
    assert answer["slider"] == "1" and answer["position"].startswith("0%")
    assert answer["movers"] == [True, False]
    assert answer["column"] == sorted(answer["column"], reverse=True)
    assert answer["folds"] and answer["broken"] == 0
    assert answer["printed"] == [3, 6], "on paper, as without JavaScript, the frames of every slider are shown"


def test_it_can_be_printed(tmp_path):
    page, pdf = tmp_path / "index.html", tmp_path / "page.pdf"
    page.write_text(render([whole_report()], None), encoding="utf-8")
    run_chromium(tmp_path, f"--print-to-pdf={pdf}", f"file://{page}")
    assert pdf.read_bytes().startswith(b"%PDF") and pdf.stat().st_size > 20_000
