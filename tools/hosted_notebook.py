"""Make a fresh clone usable from the notebook that runs this file, in Colab and the like.

It installs the package from its clone into the kernel's environment. A kernel reads the path files of its environment
when it starts, so what is installed by one is not found until a restart; here they are read again.
"""

import importlib
import os
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

CLONE = Path(__file__).resolve().parents[1]


def main() -> None:
    """Install, read the new path file, and go to the notebooks' folder."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "-e", f"{CLONE}[backbone]"]
    subprocess.run(command, check=True)
    site.addsitedir(sysconfig.get_path("purelib"))
    importlib.invalidate_caches()
    os.chdir(CLONE / "notebooks")
    package = importlib.import_module("vitmech_utils")
    print(f"vitmech {package.__version__} from {CLONE}")


if __name__ == "__main__":
    main()
