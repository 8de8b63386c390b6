"""What is shown to a reader: plain text, whatever a store, a file or a user calls something; tables whole."""

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table

from lenet.runtime.errors import visible

WIDTH = 160  # where the output is no terminal


class Screen(Console):
    """A console. Square brackets in a text are no markup, and what would steer a terminal is shown as its code.

    A table is wider than the terminal rather than that a name or a number in it is cut short.
    """

    def __init__(self, **options: Any) -> None:
        width = None if options.get("stderr") or sys.stdout.isatty() else WIDTH
        super().__init__(**{"width": width, "markup": False, "highlight": False} | options)

    def print(self, *objects: Any, **options: Any) -> None:
        unlimited = self.options.update(max_width=10_000)
        for table in (thing for thing in objects if isinstance(thing, Table)):
            for column in table.columns:
                words = (Measurement.get(self, unlimited, cell).minimum for cell in (column.header, *column.cells))
                column.min_width = max(words)
            options["crop"] = False
        super().print(*objects, **options)

    def render(self, *given: Any, **options: Any) -> Iterable[Segment]:
        for text, style, control in super().render(*given, **options):
            yield Segment(text if control else visible(text), style, control)
