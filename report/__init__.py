"""Tables from records: records in, text out."""
