"""Everything that depends on private APIs of third parties, one module per library.

Each function states what it touches and why no public API does it, each module the version that it was checked with. A
test of each fails when the library changes, and tests/compat/test_private_apis.py finds private names elsewhere.
"""
