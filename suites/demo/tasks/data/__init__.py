"""Questions and images of the demo benchmarks, written by `vtpbench.suites.demo.build`."""
