"""What the module needs besides the package: everything that touches Slicer's window and processes.

Nothing here imports torch: it runs in a process of its own.
"""

# ruff: noqa: N999 (libraries of Slicer's modules are called so)
