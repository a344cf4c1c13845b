"""A progress bar on stderr: tqdm's if it is installed, else a line for each item. Works when stderr is no terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .executor import Progress


class ProgressBar:
    """Shows a capture; ``report`` is what ``Exec.capture`` calls after each bucket."""

    def __init__(self, title: str, unit: str) -> None:
        self.title = title
        self.unit = unit
        self._bar: Any = None
        self._plain = False

    def report(self, progress: Progress) -> None:
        bucket = progress.bucket
        size = " ".join(f"{n} {what}" for n, what in ((bucket.tokens, "tokens"), (bucket.seqs, "seqs")) if n)
        text = f"{bucket.mode} {size}" + ("" if progress.status == 0 else " FAILED")
        if self._bar is None and not self._plain:
            try:
                from tqdm import tqdm
            except ImportError:
                self._plain = True
            else:
                self._bar = tqdm(total=progress.count, desc=self.title, unit=self.unit, file=sys.stderr, leave=True)
        if self._bar is None:
            print(f"{self.title}: {progress.index + 1}/{progress.count} {text}", file=sys.stderr)
        else:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(1)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
