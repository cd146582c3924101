"""DICOM files to volumes in HU with their geometry. pydicom is imported here and in `export/` only."""
