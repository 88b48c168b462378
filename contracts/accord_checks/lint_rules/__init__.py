"""The lint rules, category ACCORD: one small function each, in modules by topic."""
