"""How each data set lies on disk, as its authors publish it: from a root and a split to pairs of files."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .files import Pair, by_name, called_after, find_name, matched, outside, pictures_in, read_names, visible
from .reading.picture import is_picture, stem

STARE_MASK, CHASE_MASK = r"im\d+\.ah\.ppm(\.gz)?", r"Image_.*_1stHO\.(png|bmp|tiff?|gif)"
SPLIT_FILES = Path(__file__).parent / "splits"
# What stands for a split where it has no folder or list of its own name.
SYNONYMS = {
    "train": ("train", "training", "trainval"),
    "trainval": ("trainval", "train", "training"),
    "val": ("val", "validation"),
    "test": ("test", "testing"),
}


class NoSplitError(FileNotFoundError):
    """A root that has no folder or list for a split."""


class Layout(NamedTuple):
    """One way to lay out a data set.

    expected: its folders and files, in words.  found: whether a root looks like it.  pairs: the pairs of a split.
    """

    expected: str
    found: Callable[[Path], bool]
    pairs: Callable[[Path, str], list[Pair]]


def split_folder(parent: Path, split: str) -> Path:
    """The folder of `parent` that holds a split; train and trainval are one where there is but one of them.

    Raises NoSplitError where there is none.
    """
    for name in SYNONYMS.get(split, (split,)):
        if (parent / name).is_dir():
            return parent / name
    there = sorted(path.name for path in parent.iterdir() if path.is_dir())
    raise NoSplitError(f"{parent}: no split {split!r}; folders found there: {', '.join(there) or 'none'}")


def find_list(root: Path, split: str) -> Path | None:
    """The list of a split's names: SPLIT.txt in the root or one folder below, or SPLIT_ANYTHING.txt there.

    Of several, SPLIT_full.txt; raises ValueError where there is none of that name.
    """
    for name in SYNONYMS.get(split, (split,)):
        found = [
            path
            for pattern in (f"{name}.txt", f"*/{name}.txt", f"*/{name}_*.txt")
            for path in root.glob(pattern)
        ]
        whole = [path for path in found if path.stem == f"{name}_full"]
        found = whole if len(whole) == 1 else found
        if len(found) > 1:
            raise ValueError(f"{found[1]}: a second list of the split {split!r} beside {found[0]}; keep one")
        if found and outside(found[0], root):
            raise ValueError(f"{found[0]}: a link out of {root}; expected the list itself")
        if found:
            return found[0]
    return None


def folder_pairs(root: Path, split: str) -> list[Pair]:
    """`SPLIT/images` and `SPLIT/masks`, with names that agree up to the ending."""
    folder = split_folder(root, split)
    return matched(folder / "images", folder / "masks", root)


def listed_pairs(root: Path, split: str, images: str = "images", masks: str = "masks") -> list[Pair]:
    """Pictures and masks of equal name (or NAME_mask, NAME_pixels0) in two folders, and a list for each split."""
    names_file = find_list(root, split)
    if names_file is None:
        there = sorted(path.stem for path in [*root.glob("*.txt"), *root.glob("*/*.txt")])
        raise NoSplitError(
            f"{root}: no split file {split}.txt; splits found there: {', '.join(there) or 'none'}"
        )
    image_of, mask_of = pictures_in(root / images, root), pictures_in(root / masks, root)
    return _chosen(names_file, image_of, mask_of, root / images, root / masks)


def drive_pairs(root: Path, split: str) -> list[Pair]:
    """DRIVE: `{training,test}/images/21_training.tif` with `1st_manual/21_manual1.gif`."""
    folder = split_folder(root, split)
    return matched(folder / "images", folder / "1st_manual", root, lambda name: name.split("_")[0])


def stare_pairs(root: Path, split: str) -> list[Pair]:
    """STARE: `im0001.ppm[.gz]` in one folder, the first observer's `im0001.ah.ppm[.gz]` in another."""
    images = by_name(called(root, r"im\d+\.ppm(\.gz)?"))
    masks = by_name(called(root, STARE_MASK), lambda path: stem(path).split(".")[0])
    return _chosen(_names_file(root, "stare", split), images, masks, root, root)


def chase_pairs(root: Path, split: str) -> list[Pair]:
    """CHASE_DB1: `Image_01L.jpg` and the first observer's `Image_01L_1stHO.png`."""
    images = by_name(called(root, r"Image_[^_]*\.jpe?g"))
    masks = by_name(called(root, CHASE_MASK), lambda path: stem(path)[: -len("_1stHO")])
    return _chosen(_names_file(root, "chase_db1", split), images, masks, root, root)


def called(root: Path, pattern: str) -> list[Path]:
    """The files in and below `root` whose whole name is as `pattern`, in letters of either case."""
    return [path for path in visible(root) if re.fullmatch(pattern, path.name, re.IGNORECASE)]


def parted_pairs(root: Path, split: str, masks: str) -> list[Pair]:
    """`images/SPLIT` and masks in a folder beside, again by split."""
    return matched(split_folder(root / "images", split), split_folder(root / masks, split), root)


def parted(root: Path, masks: str) -> bool:
    """Whether `images` and `masks` have a folder of pictures in common that is called after a split."""
    names = {name for synonyms in SYNONYMS.values() for name in synonyms}
    return any(all(_holds(root / part / name, root) for part in ("images", masks)) for name in names)


def _holds(folder: Path, root: Path) -> bool:
    """Whether a folder of the data set in `root` has pictures, or linked folders that are not followed."""
    there = visible(folder, root) if folder.is_dir() else ()
    return any(is_picture(path) or path.is_dir() for path in there)


def sd_saliency_pairs(root: Path, split: str) -> list[Pair]:
    """SD-saliency-900: `Source Images/*.bmp` and `Ground truth/*.png`."""
    images, masks = root / "Source Images", root / "Ground truth"
    names_file = _names_file(root, "sd_saliency_900", split)
    return _chosen(names_file, pictures_in(images, root), pictures_in(masks, root), images, masks)


SPLIT_FOLDERS = Layout(
    "{train,trainval,val,test}/{images,masks}/NAME.*",
    lambda root: any(root.glob("*/images")),
    folder_pairs,
)
LISTED = Layout(
    "images/NAME.*, masks/NAME.* (or NAME_pixels0.*) and one list of names for each split, SPLIT.txt",
    lambda root: (root / "images").is_dir() and (root / "masks").is_dir() and not parted(root, "masks"),
    listed_pairs,
)
IRSTD_1K = Layout(
    "IRSTD1k_Img/NAME.*, IRSTD1k_Label/NAME.* and one list of names for each split, SPLIT.txt",
    lambda root: (root / "IRSTD1k_Img").is_dir() and (root / "IRSTD1k_Label").is_dir(),
    lambda root, split: listed_pairs(root, split, "IRSTD1k_Img", "IRSTD1k_Label"),
)
SIRST_V2 = Layout(
    "mixed/NAME.*, annotations/masks/NAME_pixels0.* and splits/SPLIT.txt",
    lambda root: (root / "mixed").is_dir() and (root / "annotations/masks").is_dir(),
    lambda root, split: listed_pairs(root, split, "mixed", "annotations/masks"),
)
DRIVE = Layout(
    "{training,test}/images/21_training.tif, {training,test}/1st_manual/21_manual1.gif",
    lambda root: any(root.glob("*/1st_manual")),
    drive_pairs,
)
STARE = Layout(
    "im0001.ppm[.gz] and im0001.ah.ppm[.gz], in one folder or two",
    lambda root: bool(called(root, STARE_MASK)),
    stare_pairs,
)
CHASE_DB1 = Layout(
    "Image_01L.jpg and Image_01L_1stHO.png",
    lambda root: bool(called(root, CHASE_MASK)),
    chase_pairs,
)
NEU_SEG = Layout(
    "images/{training,test}/NAME.jpg and annotations/{training,test}/NAME.png",
    lambda root: parted(root, "annotations"),
    lambda root, split: parted_pairs(root, split, "annotations"),
)
PARTED = Layout(
    "images/{train,val,test}/NAME.* and masks/{train,val,test}/NAME.*",
    lambda root: parted(root, "masks"),
    lambda root, split: parted_pairs(root, split, "masks"),
)
SD_SALIENCY_900 = Layout(
    "Source Images/NAME.bmp and Ground truth/NAME.png",
    lambda root: (root / "Source Images").is_dir(),
    sd_saliency_pairs,
)
# From the most particular to the most general.
LAYOUTS = (
    DRIVE,
    IRSTD_1K,
    SIRST_V2,
    NEU_SEG,
    SD_SALIENCY_900,
    STARE,
    CHASE_DB1,
    PARTED,
    LISTED,
    SPLIT_FOLDERS,
)


def _names_file(root: Path, name: str, split: str) -> Path:
    """The root's own list of a split, else the one that comes with this package."""
    own = find_list(root, split)
    return own or SPLIT_FILES / f"{name}_{'train' if split == 'trainval' else split}.txt"


def _chosen(
    names_file: Path, image_of: dict[str, Path], mask_of: dict[str, Path], images: Path, masks: Path
) -> list[Pair]:
    """The pairs that a split file names, in its order; raises ValueError where it names one in two ways."""
    mask_of, named = called_after(mask_of, image_of), dict[str, str]()

    def pair(listed: str) -> Pair:
        name = find_name(listed, image_of) or find_name(listed, mask_of) or listed
        if name in named:
            raise ValueError(f"{names_file}: {name!r} is named twice, as {named[name]!r} and as {listed!r}")
        named[name] = listed
        image, mask = image_of.get(name, images / f"{name}.*"), mask_of.get(name, masks / f"{name}.*")
        missing = [str(path) for path, there in ((image, image_of), (mask, mask_of)) if name not in there]
        fault = f"{missing[0]}: no such file, which {names_file} names" if missing else ""
        return Pair(image, mask, name, fault)

    return [pair(listed) for listed in read_names(names_file)]
