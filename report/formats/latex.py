r"""LaTeX: tables for a paper; they need booktabs and, where a table is wider than a page, graphicx, which shrinks it.

In each block the best number of a column is bold and the second underlined; a table that is longer than a page comes in parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from vtpbench.report.tables.layout import CellText, cell_texts, clean, header
from vtpbench.report.tables.places import Place, places
from vtpbench.report.tables.table import Block, Table, TableRow

LINE_PT = 480.0
"""Text width of the usual two-column styles, rounded down; in them `table*` spans both columns, in others it is `table`."""
CHARACTER_PT, GAP_PT = 4.6, 3.0
"""About the width of a figure in \\small, and the space on each side of a column."""
LINES = 44
"""Of a page, with what stands above and below them."""
_EMPHASIS = {0: "", 1: r"\textbf", 2: r"\underline"}

_SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{c: f"\\{c}" for c in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        **{c: f"{{{c}}}" for c in "[]*"},  # behind a line's end they would be taken for its arguments
        "±": r"$\pm$",
        "\N{MULTIPLICATION SIGN}": r"$\times$",
        "·": r"$\cdot$",
        "↓": r"$\downarrow$",
        "†": r"$^\dagger$",
        "‡": r"$^\ddagger$",
    }
)


@dataclass(frozen=True)
class TablePart:
    """One table, to be put into a document."""

    text: str
    wide: bool
    """Whether it is shrunk to the width of the page."""


def latex(tables: Sequence[Table], more: Sequence[TablePart] = ()) -> str:
    """Print all tables, and behind them those of another kind."""
    parts = [*(part for table in tables for part in _parts(table)), *more]
    packages = "booktabs,graphicx" if any(part.wide for part in parts) else "booktabs"
    return f"% \\usepackage{{{packages}}}\n" + "\n".join(part.text for part in parts)


def escape(text: str) -> str:
    """Make a text show as it is."""
    return clean(text).translate(_SPECIAL)


def label(title: str) -> str:
    r"""Name a table for `\ref`: its title in small letters, figures and hyphens."""
    return f"tab:{re.sub('[^a-z0-9.]+', '-', title.lower()).strip('-') or 'vtpbench'}"


def part_of(
    title: str,
    head: Sequence[str],
    body: Sequence[str],
    below: Sequence[str],
    widths: Sequence[int],
    names: int = 1,
    caption: str = "",
) -> TablePart:
    """Lay out one table.

    Parameters
    ----------
    title : how the caption begins, and what the label is made of; not escaped yet
    head, body, below : finished lines: headings, rows and rules, paragraphs below the table
    widths : characters of each column
    names : columns from the left that hold text
    caption : sentences behind the title, not escaped yet

    """
    wide = sum(CHARACTER_PT * width + 2 * GAP_PT for width in widths) > LINE_PT
    lines = [
        r"\begin{table*}",
        r"\centering\small",
        rf"\setlength{{\tabcolsep}}{{{GAP_PT:g}pt}}\setlength{{\belowcaptionskip}}{{4pt}}",
        rf"\caption{{{escape(f'{title}. {caption}' if caption else title)}}}",
        rf"\label{{{label(title)}}}",
        *([r"\resizebox{\linewidth}{!}{%"] if wide else []),
        rf"\begin{{tabular}}{{{'l' * names}{'r' * (len(widths) - names)}}}",
        r"\toprule",
        *head,
        *body,
        r"\bottomrule",
        r"\end{tabular}" + "}" * wide,
        *([r"\par\medskip\begin{minipage}{\linewidth}\footnotesize\raggedright", *below, r"\end{minipage}"] if below else []),
        r"\end{table*}",
        "",
    ]
    return TablePart("\n".join(lines), wide)


def line(cells: Sequence[str]) -> str:
    """Join finished cells into a line."""
    return " & ".join(cells) + r" \\"


def fact_lines(facts: Sequence[tuple[str, str]]) -> list[str]:
    """Print names and texts as paragraphs."""
    return [rf"\textbf{{{escape(name)}:}} {escape(fact)}\par" for name, fact in facts]


def _parts(table: Table) -> Iterator[TablePart]:
    """Lay out a table, one that is too long in parts; the last has the footer."""
    head = [line([*map(escape, header(table))])]
    widths = [max(map(len, texts)) for texts in zip(*_texts(table), strict=True)]
    pages = list(_pages(table.blocks))
    for number, page in enumerate(pages, 1):
        body = [text for _, lines in page for text in lines]
        used = sorted({note for block, _ in page for row in block.rows for cell in cell_texts(row) for note in cell.notes})
        notes = [rf"\textsuperscript{{{i}}} {escape(table.notes[i - 1])}\par" for i in used]
        title = f"{table.title} ({number} of {len(pages)})" if len(pages) > 1 else table.title
        below = [*notes, *fact_lines(table.footer)] if number == len(pages) else notes
        yield part_of(title, head, body, below, widths, caption=_caption(table) if number == 1 else "")


def _pages(blocks: Sequence[Block]) -> Iterator[list[tuple[Block, list[str]]]]:
    """Share finished blocks among pages; one that fits none goes on under its title."""
    page: list[tuple[Block, list[str]]] = []
    for whole in blocks:
        for block, lines in _pieces(whole):
            if page and sum(len(own) for _, own in page) + len(lines) > LINES:
                yield page
                page = []
            page.append((block, lines))
    yield page


def _pieces(block: Block) -> Iterator[tuple[Block, list[str]]]:
    """Lay out a block, in pieces of at most a page."""
    rows = [_row(row, *found) for row, found in zip(block.rows, places(block), strict=True)]
    size = max(1, (LINES - 3) // max(map(len, rows), default=1))
    for start in range(0, len(rows), size):
        title = f"{block.title}, continued" if start else block.title
        width = 4 + len(block.rows[0].entries)
        heading = [r"\midrule", rf"\multicolumn{{{width}}}{{c}}{{\textit{{{escape(title)}}}}} \\", r"\midrule"]
        lines = [text for row in rows[start : start + size] for text in row]
        yield replace(block, rows=block.rows[start : start + size]), [*heading, *lines]


def _caption(table: Table) -> str:
    rows = [row for block in table.blocks for row in block.rows]
    if not any(place for block in table.blocks for columns, average in places(block) for place in (*columns, average)):
        return ""
    tests = any(row.average_interval is not None for row in rows)
    ties = ", and what cannot be told apart from it" if tests else ""
    return f"Bold: the best of its block{ties}; underlined: the best of the others."


def _texts(table: Table) -> Iterator[tuple[str, ...]]:
    yield header(table)
    for block in table.blocks:
        for row in block.rows:
            cells = cell_texts(row)
            yield tuple(cell.text for cell in cells)
            yield tuple(cell.below for cell in cells)


def _row(row: TableRow, benchmarks: Sequence[Place], average: Place) -> list[str]:
    """Two lines: scores, and below them relative accuracies."""
    cells = cell_texts(row)
    found = (0, 0, *benchmarks, average, 0)
    above = line([_above(cell, place) for cell, place in zip(cells, found, strict=True)])
    below = line([_set(cell.below, place) for cell, place in zip(cells, (*found[:-2], 0, 0), strict=True)])
    return [above, below] if any(cell.below for cell in cells) else [above]


def _above(cell: CellText, place: Place) -> str:
    marks = ",".join(map(str, cell.notes))
    return _set(cell.text, place) + (rf"\textsuperscript{{{marks}}}" if marks else "")


def _set(text: str, place: Place) -> str:
    number = escape(text).replace(r" \%", r"\,\%")
    return f"{_EMPHASIS[place]}{{{number}}}" if place and text else number
