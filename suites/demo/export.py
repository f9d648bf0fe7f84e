"""Write the trained model in Hugging Face form and the benchmarks as parquet."""

def export_model(*a): raise SystemExit('later')
def export_benchmarks(*a): pass
