"""The look-up of "Does it work on my pipeline?" in Chromium, by the keyboard alone.

Started by `nox -s docs`, after the site is built.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from docs_site.look import served

SITE = Path(__file__).parents[2] / "build" / "site"
ANSWER = ".unicb-verdict"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium
        browser = chromium.launch(executable_path=os.environ["CHROMIUM"], args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with served(SITE) as base:
        yield base


@pytest.fixture
def page(browser: Browser, base: str) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(f"{base}pipelines/")
    yield page
    page.close()


def ask(page: Page, words: str) -> None:
    """Skip to the content and go to the box, as one does without a mouse, and type."""
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    for _ in range(5):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "unicb-class":
            page.keyboard.type(words)
            return
    pytest.fail("the box cannot be reached by Tab")


def test_enter_shows_the_verdict_on_both_libraries(page: Page) -> None:
    ask(page, "StableDiffusionXLPipeline")
    page.keyboard.press("Enter")
    said = page.locator(ANSWER).inner_text()
    assert "StableDiffusionXLPipeline on diffusers" in said
    assert "StableDiffusionXLPipeline on mindone" in said
    assert "cut: exact (to" in said
    assert "stop: exact" in said


def test_tab_goes_through_the_classes_and_reasons_are_said(page: Page) -> None:
    ask(page, "ltx multi prompt")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "LTXI2VLongMultiPromptPipeline"
    page.keyboard.press("Enter")
    said = page.locator(ANSWER).inner_text()
    assert "cut: refused" in said
    assert "window" in said


def test_letters_are_typed_and_are_no_shortcuts(page: Page) -> None:
    """The theme searches on "s" and "f", and turns pages on "n" and "p"."""
    ask(page, "snpf")
    assert page.locator("#unicb-class").input_value() == "snpf"
    assert "No class with this in its name" in page.locator(".unicb-count").inner_text()
    assert "pipelines" in page.url


def test_an_address_names_a_class(page: Page, base: str) -> None:
    page.goto(f"{base}pipelines/?class=FluxPipeline")
    assert "FluxPipeline on diffusers" in page.locator(ANSWER).inner_text()


def test_tables_are_there_without_scripts(browser: Browser, base: str) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(f"{base}pipelines/")
    row = page.locator("tr", has_text="LTXI2VLongMultiPromptPipeline").first
    assert "refused" in row.inner_text()
    assert page.locator("#unicb-class").count() == 0
