from __future__ import annotations

import json
from pathlib import Path
from runpy import run_path

from vtpbench.harness.records.environment import NUMERICS

SCRIPT = Path(__file__).with_name("golden_numbers.py")
MEND = f"`python {SCRIPT.relative_to(Path(__file__).parents[3])}` writes them anew"


def test_answers_and_kept_tokens_change_with_the_numerics_revision_only() -> None:
    golden = json.loads(SCRIPT.with_suffix(".json").read_text())
    assert golden["revision"] == NUMERICS, f"the golden numbers are of revision {golden['revision']}, not {NUMERICS}: {MEND}"
    (found,) = run_path(str(SCRIPT))["measure"]()
    changed = [name for name, number in golden["numbers"].items() if json.loads(json.dumps(found.get(name))) != number]
    assert not changed, (
        f"{len(changed)} answers or kept tokens changed, such as {changed[0]}. If that is meant, raise "
        f"NUMERICS in harness/records/environment.py, so that releases measure their cells anew; then {MEND}"
    )
