"""Look inside trained weights, or a classical method: how low-rank, how sparse, stage by stage.

    python tools/interpret.py --weights runs/train/best.safetensors --images PICTURES/ --out runs/inside
    python tools/interpret.py --weights RPCANet.pkl --images sirst/images --names sirst/idx_427/test.txt
    python tools/interpret.py --method pcp --images PICTURES/ --show Misc_1,Misc_2

Measured over all pictures, in constant memory: the singular values of max(B_k, 0), their effective rank and their
energy in the leading 1, 5 and 10, the share of O_k above 0, |D - B_k - O_k|, and of networks that have such parts
the contrast prior's response, how far memory moves and the noise N_k. A classical method's stages are its
iterations 1, 3 and 10 and its end. In the folder --out:

    report.html         everything on one page that needs no network
    measures.json       mean and standard deviation of every measure at every stage
    measures.mat        the same for MATLAB
    stages/NAME.mat     image, background, object, restoration, ... (height x width x stages) of those shown
    figures/*.png       spectrum, sparsity, profiles and the heat maps of the pictures shown
    tensorboard/        all of it: tensorboard --logdir runs
"""

from unfoldkit.common.console import described_parser, one_line_errors
from unfoldkit.rpcanet.inside.options import Interpretation


def main() -> None:
    parser = described_parser("interpret.py", __doc__)
    parser.add_class_arguments(Interpretation)
    options = Interpretation(**parser.parse_args().as_dict())
    with one_line_errors("interpret.py"):
        from unfoldkit.rpcanet.inside.interpret import interpret

        print(f"{interpret(options)} written; tensorboard --logdir {options.out}")


if __name__ == "__main__":
    main()
