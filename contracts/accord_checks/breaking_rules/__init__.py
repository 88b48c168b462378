"""The rules for changes, categories POLICY and POLICY_STRICT.

One small function each, in modules by topic; `compare` applies them to two versions of contracts.
"""
