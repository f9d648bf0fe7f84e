"""Configurations of the models that can be built with random weights; figures as published by their authors."""
