"""What a suite will measure, known before anything is fetched or loaded: cells, questions, sizes and cost."""
