"""The tables of the documents, made of the files in tools/results, and how they get between their marks."""
