"""The demonstration: a generated directory with every special case, and one campaign on it from import to audit."""
