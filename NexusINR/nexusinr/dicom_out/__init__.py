"""Restored scans and tissues as DICOM, for a PACS: a derived MR series each, and a DICOM SEG."""
