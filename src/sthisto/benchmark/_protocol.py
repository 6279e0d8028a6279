"""What is trained on what, tested on what, and in which ways the published protocol leaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from torch import nn

from sthisto._sdata.slots import GENES_GIVEN, GENES_VARIABLE
from sthisto._splits.folds import group_folds
from sthisto._utils.arguments import check_fields, read_value
from sthisto._utils.defaults import IMAGE_ENCODER
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_choice, check_positive, listed
from sthisto.benchmark._datasets import DATASETS, DataSet, Published
from sthisto.models import METHODS
from sthisto.models.registry import method_name
from sthisto.tl._fit import check_fit

Split = Literal["patient", "section", "danet_paper"]


class Leak(NamedTuple):
    """A way in which a score of the published protocol is more than a new patient would give."""

    what: str
    here: str


LEAKS: Final = (
    Leak("The epoch is picked by the loss on the test section.", "not repeated: blocks of training sections pick it"),
    Leak("Genes are chosen on all sections, the test section too.", "not repeated, unless --genes was chosen so"),
    Leak("Batch correction is fitted with the test section.", "not repeated: there is none"),
    Leak("Other sections of the test patient are trained on, serial ones of the same tissue.", "repeated"),
    Leak(
        "The target is normalized inside the panel, so that the library size of the spot is left in it.",
        "repeated in the column 'log1p in panel'; the other columns are normalized over all genes",
    ),
    Leak("The 50 most expressed and most variable genes are those of the test section.", "repeated"),
    Leak("On HER2+ the retrieved spots are all of the test patient.", "not repeated: all training sections"),
    Leak("Flips stay on at prediction; layers are seeded alike whatever the replicate.", "not repeated"),
)
"""Ways in which scores of the DANet paper's protocol are more than a new patient would give, and which are repeated."""


@dataclass(frozen=True)
class MethodSpec:
    """A method with options, as the command line writes it: "danet" or "danet:gene_encoder=identity,k=50".

    Attributes
    ----------
    label
        What tables call it.
    method
        Name in `sthisto.models.METHODS`, or of a preset.
    options
        Arguments of `tl.fit`, those of the method among them.
    seeds
        Number of seeds; None is the protocol's.
    """

    label: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seeds: int | None = None

    def __post_init__(self) -> None:
        check_fields(MethodSpec, vars(self))
        check_choice(self.method, METHODS, name="method")
        if self.seeds is not None:
            check_positive(self.seeds, name="seeds")
        check_fit(self.method, self.options)

    @classmethod
    def parse(cls, text: str, defaults: Mapping[str, Any]) -> MethodSpec:
        """Read a method; `defaults` are options for DANet that the text may override."""
        method, colon, rest = text.partition(":")
        method = method_name(method, name="--methods")
        pairs = [pair.split("=", 1) for pair in rest.split(",") if pair]
        if any(len(pair) != 2 for pair in pairs):
            msg = f"--methods takes NAME or NAME:OPTION=VALUE,…, found {text!r}."
            raise ValueError(msg)
        own = {name: read_value(value) for name, value in pairs}
        return cls(f"{method}{colon}{rest}", method, (dict(defaults) if method == "danet" else {}) | own)


@dataclass(frozen=True)
class Protocol:
    """What a benchmark does.

    Parameters
    ----------
    dataset
        "her2st", "liver" or "hest".
    methods
        Names in `sthisto.models.METHODS`, with options as in "danet:k=50,projection=mlp", or `MethodSpec`.
    split
        "patient": no patient is in both the training and the test set. "section": patients may be in both, with a
        warning. "danet_paper": the paper's test sections, each predicted from all others, with the published settings
        of DANet.
    train, test
        Names of sections or patients. Without `test`, each patient or section is held out in turn; without `train`,
        all others are trained on.
    encoder
        Image encoder, as `tl.fit` takes it.
    genes
        The panel; None chooses the highly variable genes of the training spots of each fold, by Pearson residuals, or
        by scanpy's "seurat" flavor with split "danet_paper".
    seeds
        Number of seeds of each method.
    reference
        Reference method of the paired differences, if it is among the methods.
    patch
        `patch_size` and `patch_um` of `tl.fit`, instead of the data set's own.
    block_spots
        Side of the blocks that intervals resample, in spots of the array (``obs["array_col"]`` and
        ``obs["array_row"]``); None is a fifth of the section.
    warm_up
        Fit and predict once before the time is taken, with one epoch, so that seconds leave out the features that go
        into the cache.
    """

    dataset: str
    methods: tuple[str | MethodSpec, ...]
    split: Split = "patient"
    train: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    encoder: str | nn.Module = IMAGE_ENCODER
    genes: tuple[str, ...] | None = None
    seeds: int = 3
    reference: str = "ridge"
    patch: Mapping[str, Any] = field(default_factory=dict)
    block_spots: int | None = None
    warm_up: bool = False

    @property
    def data(self) -> DataSet:
        """The data set."""
        return DATASETS[self.dataset]

    def published(self) -> Published:
        """Return what the DANet paper did on the data set; raise ValueError where it has no table of it."""
        if self.data.published is None:
            known = [name for name, one in DATASETS.items() if one.published is not None]
            msg = f"The DANet paper has no table of {self.dataset!r}; it has {listed(known)}."
            raise ValueError(msg)
        return self.data.published

    @property
    def genes_rule(self) -> str:
        """How the genes are chosen."""
        return GENES_VARIABLE if self.genes is None else GENES_GIVEN

    def patches(self) -> dict[str, Any]:
        """Return `patch_size`, and `patch_um` unless the width is in px, as it is in the paper."""
        own = dict(self.patch or self.data.patch)
        return {"patch_size": own["patch_size"]} if self.split == "danet_paper" else own

    def gene_choice(self) -> dict[str, Any]:
        """Return the arguments of `tl.fit` that say which genes are modeled; the paper chose by flavor "seurat"."""
        if self.genes is not None:
            return {"genes": list(self.genes)}
        return {"gene_flavor": "seurat"} if self.split == "danet_paper" else {}

    def __post_init__(self) -> None:
        check_fields(Protocol, vars(self))
        check_choice(self.dataset, DATASETS, name="dataset")
        check_choice(self.split, ("patient", "section", "danet_paper"), name="split")
        check_positive(self.seeds, name="seeds")
        if not self.methods:
            msg = f"`methods` is empty; name some of {listed(METHODS)}."
            raise ValueError(msg)
        if self.split == "danet_paper":
            self.published()
        if self.split == "danet_paper" and (self.train or self.test):
            msg = "split='danet_paper' has train and test sections of its own; leave out `train` and `test`."
            raise ValueError(msg)
        if self.train and not self.test:
            msg = "`train` needs `test`; without both, each patient or section is held out in turn."
            raise ValueError(msg)
        self.specs()

    @property
    def encoder_name(self) -> str:
        """What tables call the encoder."""
        return self.encoder if isinstance(self.encoder, str) else f"module:{type(self.encoder).__name__}"

    def specs(self) -> list[MethodSpec]:
        """Return the methods with their options, DANet's as published where the split is the paper's."""
        published = self.published().options if self.split == "danet_paper" else {}
        named = {one if isinstance(one, str) else one.label: one for one in self.methods}
        return [MethodSpec.parse(one, published) if isinstance(one, str) else one for one in named.values()]

    def seeds_of(self, spec: MethodSpec) -> range:
        """Return the seeds that a method is fitted with."""
        return range(self.seeds if spec.seeds is None else spec.seeds)

    def folds(self, patient_of: Mapping[str, str]) -> dict[str, tuple[list[str], list[str]]]:
        """Return fold -> names of its training and its test sections.

        Parameters
        ----------
        patient_of
            Section -> patient of all sections that are there.

        Raises
        ------
        KeyError
            A name is no section and no patient.
        ValueError
            A section stands on both sides, or a patient does where the split is by patient.
        """
        if self.split == "danet_paper":
            tested = [name for name in self.published().test if name in patient_of]
            folds = {name: ([other for other in patient_of if other != name], [name]) for name in tested}
        elif self.test:
            test = _sections(self.test, patient_of)
            train = _sections(self.train, patient_of) if self.train else [n for n in patient_of if n not in test]
            folds = {f"{'+'.join(train)} to {'+'.join(test)}": (train, test)}
        else:
            group = patient_of if self.split == "patient" else {name: name for name in patient_of}
            held_out = group_folds(list(group.values()))
            folds = {
                fold: ([n for n in group if group[n] not in out], [n for n in group if group[n] in out])
                for fold, out in held_out.items()
            }
        for train, test in folds.values():
            self._check(train, test, patient_of)
        if not folds:
            msg = f"None of the sections that the paper tests is there: {listed(self.published().test)}."
            raise ValueError(msg)
        return folds

    def _check(self, train: Sequence[str], test: Sequence[str], patient_of: Mapping[str, str]) -> None:
        if both := sorted(set(train) & set(test)):
            msg = f"Sections {listed(both)} stand on both sides."
            raise ValueError(msg)
        if not train:
            msg = f"No section is left to train on for {listed(test)}; add sections to the data."
            raise ValueError(msg)
        shared = sorted({patient_of[name] for name in train} & {patient_of[name] for name in test})
        if shared and self.split == "patient":
            msg = f"Patients {listed(shared)} stand on both sides. Pass --split section to allow it."
            raise ValueError(msg)
        if shared:
            logger.warning(
                "Patients %s stand on both sides, with serial sections: scores do not generalize to new patients.",
                listed(shared),
            )


def _sections(names: Sequence[str], patient_of: Mapping[str, str]) -> list[str]:
    found: list[str] = []
    for name in names:
        own = [name] if name in patient_of else [s for s, patient in patient_of.items() if patient == name]
        if not own:
            msg = (
                f"{name!r} is no section and no patient. Sections: {listed(patient_of, 40)}; patients: "
                f"{listed(sorted(set(patient_of.values())))}."
            )
            raise KeyError(msg)
        found += own
    return list(dict.fromkeys(found))
