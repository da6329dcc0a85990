"""Options that several commands take, with their kinds and what help says of them."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

Days = Literal["ymd", "dmy", "mdy"] | None
Pairs = Annotated[list[tuple[str, str]], Parameter(consume_multiple=False)]
Flag = Annotated[bool, Parameter(show_default=False)]
Overwrite = Annotated[Flag, Parameter(help="Replace results that exist.")]
Resamples = Annotated[int, Parameter(help="Of patients.")]
Scans = Annotated[list[str], Parameter(help="NIfTI files, DICOM folders, or folders of NIfTI.")]
Hu = Annotated[Flag, Parameter(help="Read a scan as HU whatever its values look like.")]
_LAST = (
    "As weights.safetensors; default: the last run of the full profile, else default, else smoke."
)
Weights = Annotated[Path | None, Parameter(help=_LAST)]
