"""The viewer in a browser: Slicer's own views, without a Slicer installation.

`serve` starts it, `app` puts it together. `room` has the scene and the views, `logic` what happens
and `ui` what is seen; these two share typed state and meet in signals only. Restoring is the work
of a child process: nothing here needs torch.
"""
