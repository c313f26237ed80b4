#!/usr/bin/env python3
"""Drives the review page through a real run in Chromium, and takes pictures of it for eyes.

    vla-eval --suite libero_object --episodes 2 --videos all --output-dir runs/first
    python scripts/check_review_page.py runs/first runs/second --pictures /tmp/pictures

Filters, plays, seeks, tags and finds the tag after a reload, compares with the second run if there is one, and renders a video that is
missing: it takes one away. It works on copies; the runs stay as they are.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from playwright.sync_api import Browser, Page, sync_playwright

# Its server is started as the tests do it; they are not installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))
from results.run_directory import RunDirectory
from results.tags import read_reviews
from tests.results.review.browsing import FLAGS, served

VIDEOS = "[...document.querySelectorAll('#videos video')]"
SIZES = (1440, 400)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Check the review page on real runs."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """One run with a video of every episode, or two of the same episodes."""
    pictures: Path = Path("pictures")
    """Folder for the screenshots."""
    chromium: str = shutil.which("chromium") or "chromium"
    """The browser."""


def main(arguments: Arguments) -> None:
    """Run all checks; an assertion that fails says which."""
    arguments.pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        runs = [Path(shutil.copytree(run, Path(name) / run.resolve().name)) for run in arguments.runs]
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=FLAGS)
        with served(runs[0]) as address:
            check_one(browser, address, runs[0])
            take_pictures(browser, address, arguments.pictures, "one")
        if len(runs) > 1:
            with served(*runs) as address:
                check_two(browser, address)
                take_pictures(browser, address, arguments.pictures, "two")
        browser.close()
    print(f"pictures: {arguments.pictures}")


def check_one(browser: Browser, address: str, run: Path) -> None:
    """Load, filter, play, seek, tag, reload, render."""
    records = sorted(RunDirectory(run).records(), key=lambda record: record.spec.episode_id)
    page = opened(browser, address)
    assert page.locator("button.cell").count() == len(records)
    page.locator("#f-text").fill(records[-1].spec.episode_id)
    until(page, "document.getElementById('count').textContent.startsWith('1 of')")
    page.locator("#filters button").click()
    print(f"{len(records)} episodes loaded and filtered")
    shown = next(record for record in records if record.video)
    page.locator(f"[data-id='{shown.spec.episode_id}']").click()
    until(page, f"{VIDEOS}[0]?.readyState >= 2")
    page.keyboard.press(" ")
    until(page, f"{VIDEOS}[0].currentTime > 1")
    page.keyboard.press(" ")
    page.locator("#scrub").fill("10")
    until(page, f"!{VIDEOS}[0].seeking && Math.floor({VIDEOS}[0].currentTime * 20 + 0.01) === 10")
    print(f"{shown.spec.episode_id} played for a second and sought step 10")
    page.locator("h1").click()
    page.keyboard.press("6")
    until(page, "document.getElementById('saved').textContent === 'Saved.'")
    assert read_reviews(run)[shown.spec.episode_id].tags == ("stuck",)
    page.reload()
    page.wait_for_selector("html[data-ready=true]")
    assert page.get_by_role("checkbox", name="stuck").is_checked()
    print("a tag was saved, and found after a reload")
    (run / shown.video).unlink()
    page.reload()
    page.wait_for_selector("html[data-ready=true]")
    page.keyboard.press("r")
    started, said = time.monotonic(), set[str]()
    while page.locator("#videos video").count() == 0:
        assert time.monotonic() - started < 600
        said.update(page.locator("#videos .said").all_inner_texts())
        page.wait_for_timeout(200)
    until(page, f"{VIDEOS}[0].readyState >= 2")
    progress = [text for text in said if text.startswith("frame")]
    assert progress, said
    print(f"a missing video was rendered in {time.monotonic() - started:.0f} s, with progress such as {progress[0]!r}")
    page.context.close()


def check_two(browser: Browser, address: str) -> None:
    """Compare."""
    page = opened(browser, address)
    until(page, "document.querySelectorAll('#comparison p').length > 0")
    print(page.locator("#comparison p").first.inner_text())
    page.locator("#f-flipped").check()
    print(page.locator("#count").inner_text())
    page.context.close()


def take_pictures(browser: Browser, address: str, folder: Path, name: str) -> None:
    """Wide and narrow, light and dark."""
    for width in SIZES:
        for scheme in ("light", "dark"):
            page = opened(browser, address, width=width, scheme=scheme)
            page.wait_for_timeout(1000)
            page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=width == min(SIZES))
            page.context.close()


def opened(browser: Browser, address: str, *, width: int = 1440, scheme: str = "light") -> Page:
    """The page, ready; what goes wrong in it ends this program."""

    def fail(error: object) -> None:
        raise SystemExit(f"the page raised {error}")

    context = browser.new_context(viewport={"width": width, "height": 950}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.on("pageerror", fail)
    page.goto(address)
    page.wait_for_selector("html[data-ready=true]")
    return page


def until(page: Page, expression: str, timeout_s: float = 30.0) -> None:
    """Wait for JavaScript to be true."""
    deadline = time.monotonic() + timeout_s
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"after {timeout_s:.0f} s still not true: {expression}"
        page.wait_for_timeout(30)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
