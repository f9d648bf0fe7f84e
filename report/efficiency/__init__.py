"""Tables and plots of efficiency records."""
