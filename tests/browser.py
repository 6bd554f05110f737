"""A page in a real headless Chromium, from its command line alone: no driver, no network."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def browser() -> str:
    """Return the browser's path; fails where none is installed, with what to install."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    assert found is not None, "These tests need a browser: install Debian's package chromium."
    return found


def rendered(page: Path, profile: Path, script: str = "", width: int = 1500) -> str:
    """Return the page's DOM as HTML after its scripts and ``script`` have run, with no host reachable.

    profile: an empty folder for the browser. width: of its window, in pixels.
    """
    copy = profile / "page.html"
    profile.mkdir(parents=True, exist_ok=True)
    copy.write_text(page.read_text(encoding="utf-8") + f"<script>{script}</script>", encoding="utf-8")
    done = subprocess.run(
        [
            browser(),
            "--headless",
            "--no-sandbox",  # a container's root has no other way
            "--disable-gpu",
            "--no-first-run",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={profile / 'profile'}",
            f"--window-size={width},1000",
            "--virtual-time-budget=2000",
            "--dump-dom",
            copy.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout
