"""Small axial CT slices as DICOM files, for the tests of what leaves a hospital and for `make marks`."""

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian


def small_body(rng, *n_slices):
    """HU of a noisy body in air, with gas and bone: (32, 32) or (32, 32, n) int16."""
    hu = np.full((32, 32, *n_slices), -1000, np.int16)
    hu[6:26, 6:26] = rng.normal(40, 12, (20, 20, *n_slices))
    hu[9:12, 9:12], hu[16:18, 16:18] = -850, 700
    return hu


def ct_slice(k, rng, image_uid, *, preamble=b"\0" * 128, plant=None, **values):
    """Slice number k of a series of 10 x 10 x 5 mm.

    Parameters
    ----------
    k : int
    rng : Generator
        Of its noise.
    image_uid : str
    preamble : (128,) bytes
    plant : callable, optional
        Changes the header before it gets what a slice needs.
    values
        Elements by keyword, which go over all others.
    """
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, image_uid
    ds = FileDataset(None, {}, file_meta=meta, preamble=preamble)
    if plant:
        plant(ds)
    needed = dict(
        SOPClassUID=CTImageStorage, SOPInstanceUID=image_uid, Modality="CT", Rows=32, Columns=32,
        PixelSpacing=[10.0, 10.0], SliceThickness=5.0, ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        ImagePositionPatient=[-160, -160, 5.0 * k], BitsAllocated=16, BitsStored=16, HighBit=15,
        PixelRepresentation=1, SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2",
        RescaleSlope=1, RescaleIntercept=0, PixelData=small_body(rng).tobytes(),
    )  # fmt: skip
    for keyword, value in (needed | values).items():
        setattr(ds, keyword, value)
    return ds


def change(path, **values):
    """Set elements of a file's header, in place."""
    ds = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    ds.save_as(path)
