"""`vtpbench check`: judge a pruner, or a model family."""

from __future__ import annotations

from collections.abc import Sequence

from vtpbench.pruners.errors import UserError


def checked(
    pruner: str | None,
    options: Sequence[str],
    families: Sequence[str] | None,
    model: str | None,
    as_json: bool,
    width: int | None = None,
) -> tuple[str, bool]:
    """Run a conformance kit; gives its report, as wide as `width` says, and whether what was judged conforms.

    Raises
    ------
    UserError : neither or both of a pruner and a model, options that belong to the other, and what the kits refuse

    """
    from vtpbench.harness.check import check, check_family, render, render_family
    from vtpbench.harness.suite.options import read_options

    if (pruner is None) == (model is None):
        raise UserError(
            "name what to judge: a pruner (vtpbench check fastv), or a model family (vtpbench check --model qwen2_vl)"
        )
    if model is not None:
        if options or families:
            raise UserError("--option and --family are for judging a pruner; leave them out with --model")
        found = check_family(model)
        return render_family(found, "json" if as_json else "plain", width), found.ok
    assert pruner is not None, "one of the two is there"
    report = check(pruner, read_options(options), families)
    return render(report, "json" if as_json else "plain", width), report.ok
