from vtpbench.harness.check import check, render


def test_key_norm_conforms():
    report = check("key-norm")
    assert report.ok, render(report)
    assert report.distribution == "vtpbench-plugin-example"
