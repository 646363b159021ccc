# SPDX-License-Identifier: Apache-2.0
"""Coverage-guided fuzzing with atheris (pip install atheris), and its corpus played back without.

    python test/fuzz/fuzz.py TARGET [libFuzzer options] FOLDER...   fuzz: payload, entropy, roic,
                                                                    model, photograph, data_set,
                                                                    driver_image or messages
    python test/fuzz/fuzz.py TARGET --seeds FOLDER                  write what to start from
    python test/fuzz/fuzz.py --replay CORPUS TARGET...              run all files of CORPUS/TARGET

For example `mkdir found; python test/fuzz/fuzz.py roic -max_total_time=600 found
test/fuzz/corpus/roic`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def main() -> None:
    name, *rest = sys.argv[1:]
    if name == "--replay":
        from targets import TARGETS

        corpus, *names = rest
        for name in names:
            files = sorted((Path(corpus) / name).iterdir())
            for file in files:
                TARGETS[name](file.read_bytes())
            sys.stdout.write(f"{name}: {len(files)} inputs\n")
    elif rest[:1] == ["--seeds"]:
        from seeds import write_seeds

        write_seeds(name, Path(rest[1]))
    else:
        import atheris

        with atheris.instrument_imports(include=["roi_codec_ros", "targets", "PIL", "yaml"]):
            from targets import TARGETS

            target = TARGETS[name]
            target(b"")  # imports inside functions, too
        atheris.Setup([sys.argv[0], *rest], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
