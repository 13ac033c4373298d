"""The HTML report: everything worth knowing about some models on one data set, in one file."""
