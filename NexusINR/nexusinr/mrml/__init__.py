"""Results in a MRML scene, and the views that compare them with the scans.

Real MRML without Qt, so that the 3D Slicer module and the browser viewer share it. The scene and
the layout node come in as arguments; nothing here looks for an application.
"""
