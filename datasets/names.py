"""What the data sets are called on command lines and in configurations."""

from typing import Literal

DataSetName = Literal[
    "synthetic",
    "folder",
    "sirst",
    "nudt_sirst",
    "irstd_1k",
    "sirst_aug",
    "drive",
    "stare",
    "chase_db1",
    "neu_seg",
    "sd_saliency_900",
    "sirst_v2",
]
Grey = Literal["opencv", "pillow"]
