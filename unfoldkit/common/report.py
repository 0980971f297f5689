"""What a look inside leaves behind: figures as files, in TensorBoard and in one page that needs no network."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import SummaryWriter

STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 62rem; margin: auto; padding: 1rem; }
body { color: #111; background: #fff; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2rem; }
img { display: block; max-width: 100%; height: auto; margin: auto; }
figure { margin: 1rem 0; } figcaption { color: #444; font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #bbb; padding: .25rem .6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass
class Report:
    """Gathers figures and tables, and writes each where it belongs.

    folder: holds figures/NAME.png, and at the end report.html.  writer: of the TensorBoard logs.
    """

    folder: Path
    writer: "SummaryWriter"
    parts: list[str] = field(default_factory=list)

    def heading(self, text: str) -> None:
        self.parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        self.parts.append(f"<p>{html.escape(text)}</p>")

    def figure(self, name: str, figure: "Figure", caption: str) -> None:
        """As figures/NAME.png, as TensorBoard image figures/NAME and, with its caption, in the page."""
        import cv2

        from unfoldkit.common.figures import rendered
        from unfoldkit.common.files import write_result

        pixels = rendered(figure, dpi=120)
        content = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
        path = self.folder / "figures" / f"{name}.png"
        write_result(path, content)
        self.writer.add_image(f"figures/{name}", pixels, dataformats="HWC")
        source = base64.b64encode(content).decode()
        self.parts.append(
            f'<figure id="{html.escape(name)}"><img alt="{html.escape(caption)}" '
            f'src="data:image/png;base64,{source}"><figcaption>{html.escape(caption)}</figcaption></figure>'
        )

    def table(self, head: Sequence[str], rows: Mapping[str, Sequence[str]]) -> None:
        cells = [_row("th", head), *(_row("td", (name, *values)) for name, values in rows.items())]
        self.parts.append(f'<div class="wide"><table>{"".join(cells)}</table></div>')

    def write(self, title: str) -> Path:
        """report.html: everything inline, and no leave to load anything else."""
        from unfoldkit.common.files import write_whole

        path = self.folder / "report.html"
        write_whole(
            path,
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<style>{STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1>\n"
            + "\n".join(self.parts)
            + "\n</body></html>\n",
        )
        return path


def fresh_writer(folder: Path) -> "SummaryWriter":
    """A writer of TensorBoard logs into `folder`, in place of those of an earlier run."""
    from torch.utils.tensorboard import SummaryWriter

    for earlier in folder.glob("events.out.tfevents.*"):
        earlier.unlink()
    return SummaryWriter(str(folder))


def write_mat(path: Path, variables: Mapping[str, object]) -> None:
    """A MATLAB file, whole or not at all; vectors become rows."""
    from scipy.io import savemat

    from unfoldkit.common.files import whole_file

    with whole_file(path) as draft:
        savemat(draft, dict(variables), appendmat=False, do_compression=True, oned_as="row")


def _row(cell: str, values: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{cell}>{html.escape(value)}</{cell}>" for value in values) + "</tr>"
