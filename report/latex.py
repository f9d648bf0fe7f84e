r"""LaTeX: tables for a paper; they need booktabs and, where a table is wider than a page, graphicx, which shrinks it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vtpbench.report.layout import Place, clean, header, places
from vtpbench.report.table import Row, Table

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
        "†": r"$^\dagger$",
        "‡": r"$^\ddagger$",
    }
)


def latex(tables: Sequence[Table]) -> str:
    """Print all tables."""
    packages = "booktabs,graphicx" if any(_width_pt(table) > LINE_PT for table in tables) else "booktabs"
    return f"% \\usepackage{{{packages}}}\n" + "\n".join(_table(table) for table in tables)


def escape(text: str) -> str:
    """Make a text show as it is."""
    return clean(text).translate(_SPECIAL)


def _table(table: Table) -> str:
    names = header(table)
    body: list[str] = []
    for block in table.blocks:
        body += [r"\midrule", rf"\multicolumn{{{len(names)}}}{{c}}{{\textit{{{escape(block.title)}}}}} \\", r"\midrule"]
        body += [line for row in block.rows for line in _row(row)]
    notes = [rf"\textsuperscript{{{i}}} {escape(note)}\par" for i, note in enumerate(table.notes, 1)]
    facts = [rf"\textbf{{{escape(name)}:}} {escape(fact)}\par" for name, fact in table.footer]
    wide = _width_pt(table) > LINE_PT
    return "\n".join(
        [
            r"\begin{table*}",
            r"\centering\small",
            rf"\setlength{{\tabcolsep}}{{{GAP_PT:g}pt}}",
            rf"\caption{{{escape(table.title)}}}",
            *([r"\resizebox{\linewidth}{!}{%"] if wide else []),
            rf"\begin{{tabular}}{{l{'r' * (len(names) - 1)}}}",
            r"\toprule",
            " & ".join(map(escape, names)) + r" \\",
            *body,
            r"\bottomrule",
            r"\end{tabular}" + "}" * wide,
            r"\par\medskip\begin{minipage}{\linewidth}\footnotesize\raggedright",
            *notes,
            *facts,
            r"\end{minipage}",
            r"\end{table*}",
            "",
        ]
    )


def _width_pt(table: Table) -> float:
    """Estimate how wide a table is before it is shrunk."""
    columns = zip(*_texts(table), strict=True)
    return sum(CHARACTER_PT * max(map(len, texts)) + 2 * GAP_PT for texts in columns)


def _texts(table: Table) -> Iterator[tuple[str, ...]]:
    yield header(table)
    for block in table.blocks:
        for row in block.rows:
            cells = places(row)
            yield tuple(cell.text for cell in cells)
            yield tuple(cell.below for cell in cells)


def _row(row: Row) -> list[str]:
    """Two lines: scores, and below them relative accuracies."""
    cells = places(row)
    above = " & ".join(map(_above, cells)) + r" \\"
    below = " & ".join(_number(place.below) for place in cells) + r" \\"
    return [above, below] if any(place.below for place in cells) else [above]


def _above(place: Place) -> str:
    marks = ",".join(map(str, place.notes))
    return _number(place.text) + (rf"\textsuperscript{{{marks}}}" if marks else "")


def _number(text: str) -> str:
    return escape(text).replace(r" \%", r"\,\%")
