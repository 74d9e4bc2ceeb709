"""The demonstration: a generated directory with every awkward case, and one campaign on it from import to audit."""
