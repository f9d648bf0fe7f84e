"""`vtpbench verify`: whether results are sound, by what they say of themselves and by scoring their answers again."""
