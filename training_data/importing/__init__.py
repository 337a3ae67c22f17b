"""Label tables from other evaluation tools' results."""
