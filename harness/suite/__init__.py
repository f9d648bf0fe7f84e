"""What a user writes: suites, their parts, benchmarks and the data behind them."""
