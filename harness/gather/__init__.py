"""Records of one or several folders, brought together."""
