"""The main job: scans in, finer scans and a segmentation out."""
