"""Tables as text: Markdown, LaTeX, CSV, JSON, a terminal."""
