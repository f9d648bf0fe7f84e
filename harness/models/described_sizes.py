"""The sizes of a model that was described, of which no more than the configuration need be here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vtpbench.harness.host.json_text import load_json
from vtpbench.harness.models.dimensions import Dimensions
from vtpbench.harness.models.dummy import read_configuration
from vtpbench.harness.models.load import read_checkpoint_config
from vtpbench.harness.models.written_config import facts_of

if TYPE_CHECKING:
    from vtpbench.harness.models.load import Described


def dimensions_of(model: Described) -> Dimensions:
    """Read the sizes of a model; raises `UserError` where its family does not state them."""
    alone = model.folder.is_file()
    written = load_json(model.folder if alone else model.folder / "config.json", finite=False)
    read = read_configuration if alone else lambda folder: read_checkpoint_config(model)
    return facts_of(written, lambda: read(model.folder), Dimensions.from_config)
