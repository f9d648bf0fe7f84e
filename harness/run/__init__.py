"""From a suite to records: plan, loop, engine, answering, scoring."""
