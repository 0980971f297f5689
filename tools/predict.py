"""Run trained weights, or a classical method, on pictures and videos: where are the objects?

    python tools/predict.py --weights runs/train/best.safetensors picture.png folder/ --out DIR
    python tools/predict.py --method ipi picture.png --out DIR
    python tools/predict.py --method pcp video.mp4 --out DIR

For each picture, at its own size:

    STEM_mask.png         255 where the probability of an object exceeds --threshold, else 0
    STEM_probability.png  probability times 255
    STEM_panel.png        input, probability, background and object side by side (with --panels)
    detections.csv, .json each object's centroid, area, box, peak and mean probability (with --detections)

Of a video STEM_background.avi, STEM_probability.avi and STEM_mask.avi are left. Weights, ipi and pstnn take it
frame by frame; pcp, pssv and wnnm split --block frames at a time into what stays and what moves.

Folders are searched below, and the results laid out alike; of a TIFF file of several pages or an animation each
page is taken. Pictures and frames are read ahead of the computation and written behind it.
"""

from unfoldkit.common.console import described_parser, one_line_errors
from unfoldkit.rpcanet.inference.options import Prediction


def main() -> None:
    parser = described_parser("predict.py", __doc__)
    parser.add_argument("inputs", nargs="+", type=str, help="pictures, videos, or folders of them")
    parser.add_class_arguments(Prediction, skip={"inputs", "panels", "detections", "skip_bad"})
    parser.add_argument("--panels", action="store_true", help="write STEM_panel.png too")
    parser.add_argument(
        "--detections", action="store_true", help="write detections.csv and .json, a row for each object"
    )
    parser.add_argument("--skip_bad", "--skip-bad", action="store_true", help="leave out unreadable inputs")
    options = Prediction(**parser.parse_args().as_dict())
    with one_line_errors("predict.py"):
        from unfoldkit.rpcanet.inference.prediction import predict

        written = predict(options)
        print(f"{len(written)} files written to {options.out}")


if __name__ == "__main__":
    main()
