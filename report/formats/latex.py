r"""LaTeX: tables for a paper; they need booktabs and, where a table is wider than a page, graphicx, which shrinks it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vtpbench.report.tables.layout import CellText, cell_texts, clean, header
from vtpbench.report.tables.table import Table, TableRow

LINE_PT = 480.0
"""Text width of the usual two-column styles, rounded down; in them `table*` spans both columns, in others it is `table`."""
CHARACTER_PT, GAP_PT = 4.6, 3.0
"""About the width of a figure in \\small, and the space on each side of a column."""

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
    parts = [*map(_part, tables), *more]
    packages = "booktabs,graphicx" if any(part.wide for part in parts) else "booktabs"
    return f"% \\usepackage{{{packages}}}\n" + "\n".join(part.text for part in parts)


def escape(text: str) -> str:
    """Make a text show as it is."""
    return clean(text).translate(_SPECIAL)


def part_of(
    title: str, head: Sequence[str], body: Sequence[str], below: Sequence[str], widths: Sequence[int], names: int = 1
) -> TablePart:
    """Lay out one table.

    Parameters
    ----------
    title : caption, not escaped yet
    head, body, below : finished lines: headings, rows and rules, paragraphs below the table
    widths : characters of each column
    names : columns from the left that hold text

    """
    wide = sum(CHARACTER_PT * width + 2 * GAP_PT for width in widths) > LINE_PT
    lines = [
        r"\begin{table*}",
        r"\centering\small",
        rf"\setlength{{\tabcolsep}}{{{GAP_PT:g}pt}}",
        rf"\caption{{{escape(title)}}}",
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


def _part(table: Table) -> TablePart:
    names = header(table)
    body: list[str] = []
    for block in table.blocks:
        body += [r"\midrule", rf"\multicolumn{{{len(names)}}}{{c}}{{\textit{{{escape(block.title)}}}}} \\", r"\midrule"]
        body += [text for row in block.rows for text in _row(row)]
    notes = [rf"\textsuperscript{{{i}}} {escape(note)}\par" for i, note in enumerate(table.notes, 1)]
    widths = [max(map(len, texts)) for texts in zip(*_texts(table), strict=True)]
    return part_of(table.title, [line([*map(escape, names)])], body, [*notes, *fact_lines(table.footer)], widths)


def _texts(table: Table) -> Iterator[tuple[str, ...]]:
    yield header(table)
    for block in table.blocks:
        for row in block.rows:
            cells = cell_texts(row)
            yield tuple(cell.text for cell in cells)
            yield tuple(cell.below for cell in cells)


def _row(row: TableRow) -> list[str]:
    """Two lines: scores, and below them relative accuracies."""
    cells = cell_texts(row)
    above, below = line([*map(_above, cells)]), line([_number(place.below) for place in cells])
    return [above, below] if any(place.below for place in cells) else [above]


def _above(place: CellText) -> str:
    marks = ",".join(map(str, place.notes))
    return _number(place.text) + (rf"\textsuperscript{{{marks}}}" if marks else "")


def _number(text: str) -> str:
    return escape(text).replace(r" \%", r"\,\%")
