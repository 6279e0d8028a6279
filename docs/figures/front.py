"""Draw the picture at the head of the README: `python docs/figures/front.py`, about two minutes on two CPU cores.

DANet is trained on two synthetic patients and predicts a third from its image; nothing in the picture is a real tissue.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

import sthisto as sth

GENES = ["COL1A1", "EPCAM"]
OUT = Path(__file__).parents[1] / "_static" / "front.png"


def main() -> None:
    sdata = sth.datasets.synthetic(n_sections=3, n_patients=3, n_spots=900, um_per_px=0.5)
    sth.pp.split(sdata, by="patient", patient_key="patient", test=["P3"])
    model = sth.tl.fit(sdata, image_encoder="efficientnet_lite0", patch_um=112)
    sth.tl.predict(sdata, model)
    sth.tl.evaluate(sdata)
    figure = sth.pl.gene_compare(sdata, GENES, sections="S3_spots", figsize=(9, 5.6))
    figure.savefig(OUT, dpi=110, bbox_inches="tight")
    image = Image.open(OUT).convert("RGB").point(lambda value: value & 0xF8 | value >> 5)  # 5 bits a channel:
    image.save(OUT, optimize=True)  # half the size, no visible change


if __name__ == "__main__":
    main()
