"""Everything that depends on private APIs of third parties, one module per library.

Each function names the private API and the reason why no public one suffices; each module names the checked version.
The tests fail when the library changes, and tests/compat/test_private_apis.py finds private names elsewhere.
"""
