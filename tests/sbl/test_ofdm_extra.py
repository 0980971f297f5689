"""Without Sionna everything else imports, and the error names the extra."""

import subprocess
import sys

SCRIPT = """
import sys
sys.modules["sionna"] = sys.modules["sionna.phy"] = None
import unfoldkit.sbl as sbl
sbl.AMKroSBL, sbl.UnfoldedKroSBL, sbl.DelayGrid
try:
    sbl.KroSBLChannelEstimator
except ModuleNotFoundError as error:
    print(error)
"""


def test_the_error_names_the_extra():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert "pip install 'unfoldkit[sionna]'" in done.stdout
