"""Which files a tag means, on repositories shaped like those of llama.cpp's own test."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from hashlib import sha256

import pytest

from llamactl.errors import BadMetadata, IncompleteSet, NoSuchTag
from llamactl.models.filenames import bits_of, is_model, plain_tag_of, split_of, tag_of
from llamactl.models.hubfile import HubFile, Manifest
from llamactl.models.reference import ModelRef
from llamactl.models.selection import Selection, quants, select

FLAT = [
    "README.md",
    "model-BF16.gguf",
    "model-Q4_K_M.gguf",
    "model-Q8_0.gguf",
    "mmproj-model-BF16.gguf",
    "mmproj-model-Q8_0.gguf",
    "mtp-model-BF16.gguf",
    "mtp-model-Q4_0.gguf",
    "mtp-model-Q8_0.gguf",
    "dflash-model-BF16.gguf",
    "dflash-model-Q8_0.gguf",
]
SUBDIR = [
    "mmproj-model-f16.gguf",
    "model-mtp-BF16.gguf",
    "model-mtp-Q8_0.gguf",
    "Q3_K_M/model-Q3_K_M-00001-of-00003.gguf",
    "Q3_K_M/model-Q3_K_M-00002-of-00003.gguf",
    "Q3_K_M/model-Q3_K_M-00003-of-00003.gguf",
    "Q8_0/model-Q8_0-00001-of-00002.gguf",
    "Q8_0/model-Q8_0-00002-of-00002.gguf",
]
UNSLOTH = ["model-UD-Q8_K_XL.gguf", "mmproj-BF16.gguf", "model-MTP-BF16.gguf"]
VENDORS = ["TheDrummer_Model-24B-v4.1-Q8_0.gguf", "BlackSheep-24B.Q8_0.gguf"]
BY_FOLDER = [
    "IQ2_M/model-00001-of-00002.gguf",
    "IQ2_M/model-00002-of-00002.gguf",
    "Q8_0/model-00001-of-00002.gguf",
    "Q8_0/model-00002-of-00002.gguf",
]


def hub_files(names: Sequence[str]) -> list[HubFile]:
    return [
        HubFile(name, 1000 + number, sha256(name.encode()).hexdigest())
        for number, name in enumerate(names)
    ]


def choose(names: Sequence[str], tag: str = "latest", manifest: str | None = None) -> Selection:
    parsed = None if manifest is None else Manifest(b"{}", manifest, None)
    return select(ModelRef("org/name", tag), hub_files(names), parsed)


def names_of(selection: Selection) -> list[str]:
    return [file.filename for file in selection.ggufs]


def mmproj_of(selection: Selection) -> str | None:
    return selection.mmproj.filename if selection.mmproj else None


# Tag to files, in any order of the listing.


@pytest.mark.parametrize(
    ("names", "tag", "shown", "chosen", "mmproj"),
    [
        (FLAT, "Q8_0", "Q8_0", ["model-Q8_0.gguf"], "mmproj-model-Q8_0.gguf"),
        (FLAT, "q8_0", "Q8_0", ["model-Q8_0.gguf"], "mmproj-model-Q8_0.gguf"),
        (FLAT, "latest", "latest", ["model-Q4_K_M.gguf"], "mmproj-model-Q8_0.gguf"),
        (FLAT, "bf16", "BF16", ["model-BF16.gguf"], "mmproj-model-BF16.gguf"),
        (FLAT, "model-BF16.gguf", "BF16", ["model-BF16.gguf"], "mmproj-model-BF16.gguf"),
        (FLAT, "MODEL-bf16", "BF16", ["model-BF16.gguf"], "mmproj-model-BF16.gguf"),
        (SUBDIR, "Q3_K_M", "Q3_K_M", SUBDIR[3:6], "mmproj-model-f16.gguf"),
        (SUBDIR, SUBDIR[7], "Q8_0", SUBDIR[6:8], "mmproj-model-f16.gguf"),
        (SUBDIR, "model-Q8_0-00001-of-00002.gguf", "Q8_0", SUBDIR[6:], "mmproj-model-f16.gguf"),
        (UNSLOTH, "latest", "latest", ["model-UD-Q8_K_XL.gguf"], "mmproj-BF16.gguf"),
        (UNSLOTH, "Q8_K_XL", "UD-Q8_K_XL", ["model-UD-Q8_K_XL.gguf"], "mmproj-BF16.gguf"),
        (UNSLOTH, "ud-q8_k_xl", "UD-Q8_K_XL", ["model-UD-Q8_K_XL.gguf"], "mmproj-BF16.gguf"),
        (BY_FOLDER, "iq2_m", "IQ2_M", BY_FOLDER[:2], None),
        (["m.q5_k_m.gguf"], "Q5_K_M", "q5_k_m", ["m.q5_k_m.gguf"], None),
        (["Foo-I-Compact.gguf"], "compact", "Compact", ["Foo-I-Compact.gguf"], None),
        (["Foo-Q3_K_S-2.88bpw.gguf"], "q3_k_s", "Q3_K_S", ["Foo-Q3_K_S-2.88bpw.gguf"], None),
        (["model.gguf"], "latest", "latest", ["model.gguf"], None),
        (["model.gguf"], "model", "model.gguf", ["model.gguf"], None),
        (["m-00001-of-00001.gguf"], "latest", "latest", ["m-00001-of-00001.gguf"], None),
    ],
)
def test_a_tag_finds_its_files_whatever_the_order_of_the_listing(
    names: list[str], tag: str, shown: str, chosen: list[str], mmproj: str | None
) -> None:
    for seed in range(12):
        shuffled = random.Random(seed).sample(names, len(names))
        selection = choose(shuffled, tag)
        assert selection.tag == shown
        assert names_of(selection) == chosen
        assert mmproj_of(selection) == mmproj


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["m-Q8_0.gguf", "m-Q4_0.gguf"], "m-Q4_0.gguf"),
        (["m-Q8_0.gguf", "m-UD-Q4_K_M.gguf", "m-Q4_0.gguf"], "m-UD-Q4_K_M.gguf"),
        (["m-UD-Q4_K_M.gguf", "m-Q4_K_M.gguf"], "m-Q4_K_M.gguf"),
        (["m-IQ4_XS.gguf", "m-Q8_0.gguf"], "m-IQ4_XS.gguf"),
        (["m-Q8_0.gguf", "m-IQ4_XS.gguf"], "m-Q8_0.gguf"),
        (["draft-Q4_K_M.gguf", "m-Q8_0.gguf"], "m-Q8_0.gguf"),
        (["draft-Q4_K_M.gguf"], "draft-Q4_K_M.gguf"),
        (["m-MTP-Q4_K_M.gguf"], "m-MTP-Q4_K_M.gguf"),
    ],
)
def test_latest_is_q4_k_m_then_four_bits_then_the_first_model(
    names: list[str], chosen: str
) -> None:
    assert names_of(choose(names)) == [chosen]


def test_the_first_in_the_listing_wins_between_two_models_of_one_quant() -> None:
    assert names_of(choose(VENDORS, "Q8_0")) == [VENDORS[0]]
    assert names_of(choose(VENDORS[::-1], "Q8_0")) == [VENDORS[1]]


def test_the_second_model_of_a_quant_is_kept_under_its_file_name() -> None:
    selection = choose(VENDORS, VENDORS[1])
    assert selection.tag == VENDORS[1]
    assert names_of(selection) == [VENDORS[1]]


def test_the_name_of_a_file_means_that_file_even_when_it_looks_like_a_quant() -> None:
    names = ["model-Q4_K_M.gguf", "Q4_K_M.gguf"]
    assert names_of(choose(names, "Q4_K_M")) == ["Q4_K_M.gguf"]


@pytest.mark.parametrize("tag", ["K_M", "0", "Q4_K", "Q", "Q4_0", "Q4+", "(", "mmproj-BF16.gguf"])
def test_a_piece_of_a_quant_is_no_tag(tag: str) -> None:
    with pytest.raises(NoSuchTag):
        choose(FLAT, tag)


def test_a_tag_that_does_not_exist_names_those_that_do() -> None:
    with pytest.raises(NoSuchTag) as caught:
        choose(FLAT, "Q2_K")
    assert "Q2_K" in caught.value.message
    assert "BF16, Q4_K_M, Q8_0" in caught.value.hint
    assert "mtp" not in caught.value.details


def test_a_repository_without_a_model_says_so() -> None:
    with pytest.raises(NoSuchTag, match="no GGUF model"):
        choose(["README.md", "model.safetensors", "mmproj-F16.gguf", "imatrix.gguf"])


# The manifest.


def test_the_manifest_decides_where_it_differs_from_llama_cpp() -> None:
    names = ["m-Q4_0.gguf", "m-Q8_0.gguf"]
    assert names_of(choose(names, "latest", manifest="m-Q8_0.gguf")) == ["m-Q8_0.gguf"]


def test_a_manifest_names_the_first_shard_and_all_are_chosen() -> None:
    assert names_of(choose(SUBDIR, "Q8_0", manifest=SUBDIR[6])) == SUBDIR[6:]


@pytest.mark.parametrize("gone", ["gone-Q4_K_M.gguf", "README.md"])
def test_a_manifest_that_names_no_listed_model_is_passed_over(gone: str) -> None:
    assert names_of(choose(FLAT, "Q8_0", manifest=gone)) == ["model-Q8_0.gguf"]


@pytest.mark.parametrize("tag", ["latest", "Q4_K_M"])
@pytest.mark.parametrize("helper", ["draft-m-", "m-mtp-", "m-imatrix-", "mmproj-"])
def test_a_manifest_that_names_what_is_no_model_is_passed_over(helper: str, tag: str) -> None:
    named = f"{helper}Q4_K_M.gguf"
    assert names_of(choose([named, "m-Q4_K_M.gguf"], tag, manifest=named)) == ["m-Q4_K_M.gguf"]
    assert names_of(choose([named, "m-Q4_K_M.gguf"], named, manifest=named)) == [named]


def test_the_manifests_mmproj_counts_when_it_is_listed() -> None:
    manifest = Manifest(b"{}", "model-Q8_0.gguf", "mmproj-model-BF16.gguf")
    ref = ModelRef("org/name", "Q8_0")
    assert mmproj_of(select(ref, hub_files(FLAT), manifest)) == "mmproj-model-BF16.gguf"
    gone = Manifest(b"{}", "model-Q8_0.gguf", "mmproj-gone.gguf")
    assert mmproj_of(select(ref, hub_files(FLAT), gone)) == "mmproj-model-Q8_0.gguf"


def test_a_manifest_is_read_as_the_hub_sends_it() -> None:
    raw = json.dumps(
        {"ggufFile": {"rfilename": "a/m.gguf", "size": 1}, "mmprojFile": {"rfilename": "p.gguf"}}
    ).encode()
    assert Manifest.parse(raw) == Manifest(raw, "a/m.gguf", "p.gguf")
    assert Manifest.parse(b"{}") == Manifest(b"{}", None, None)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"ggufFile": 3}',
        b'{"ggufFile": {}}',
        b'{"ggufFile": {"rfilename": "../x"}}',
        b'{"mmprojFile": {"rfilename": ["x"]}}',
    ],
    ids=lambda raw: ascii(raw[:30]),
)
def test_a_manifest_that_is_none_is_refused(raw: bytes) -> None:
    with pytest.raises(BadMetadata):
        Manifest.parse(raw)


# Shards.


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_set_with_a_missing_shard_is_refused(missing: int) -> None:
    names = [name for name in SUBDIR if name != SUBDIR[3 + missing]]
    with pytest.raises(IncompleteSet, match="3 parts"):
        choose(names, "Q3_K_M")


def test_shards_of_another_count_do_not_complete_a_set() -> None:
    names = ["m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00003.gguf"]
    with pytest.raises(IncompleteSet):
        choose(names, "Q8_0")


@pytest.mark.parametrize(
    "name", ["m-Q8_0-00000-of-00000.gguf", "m-Q8_0-00003-of-00002.gguf", "m-Q8_0-1-of-2.gguf"]
)
def test_numbers_that_are_no_place_in_a_set_are_a_part_of_the_name(name: str) -> None:
    assert names_of(choose([name], name)) == [name]


def test_a_set_that_claims_a_hundred_thousand_parts_costs_nothing() -> None:
    names = [f"m{number}-Q8_0-00001-of-99999.gguf" for number in range(2000)]
    with pytest.raises(IncompleteSet):
        choose(names, "Q8_0")
    assert quants(hub_files(names)) == []


def test_a_file_listed_twice_with_two_contents_is_refused() -> None:
    files = [HubFile("m.gguf", 1, "a" * 64), HubFile("m.gguf", 1, "b" * 64)]
    with pytest.raises(BadMetadata):
        select(ModelRef("org/name"), files, None)
    assert select(ModelRef("org/name"), files[:1] * 2, None).ggufs == (files[0],)


# What belongs to a model.


def test_the_preset_of_the_root_is_chosen_and_no_other() -> None:
    selection = choose(["preset.ini", "m-Q8_0.gguf"])
    assert selection.preset is not None
    assert [file.filename for file in selection.files] == ["m-Q8_0.gguf", "preset.ini"]
    assert selection.size == 1000 + 1001
    assert choose(["a/preset.ini", "m-Q8_0.gguf"]).preset is None


def test_the_projector_of_the_nearest_folder_wins() -> None:
    names = ["mmproj-Q4.gguf", "a/mmproj-F16.gguf", "b/mmproj-Q4.gguf", "a/m-Q4_K_M.gguf"]
    assert mmproj_of(choose(names)) == "a/mmproj-F16.gguf"
    assert mmproj_of(choose(["b/mmproj-Q4.gguf", "a/m-Q4_K_M.gguf"])) is None


def test_an_mmproj_in_capitals_is_no_model() -> None:
    selection = choose(["Model-MMPROJ-F16.gguf", "Model-F16.gguf"], "f16")
    assert names_of(selection) == ["Model-F16.gguf"]
    assert mmproj_of(selection) == "Model-MMPROJ-F16.gguf"


# What a repository offers.


def test_the_variants_are_the_whole_models_with_their_sizes() -> None:
    files = hub_files([*SUBDIR, "broken-Q2_K-00001-of-00002.gguf"])
    variants = quants(files)
    assert [variant.tag for variant in variants] == ["Q3_K_M", "Q8_0"]
    assert [len(variant.files) for variant in variants] == [3, 2]
    projector = files[0]
    assert all(variant.mmproj == projector for variant in variants)
    assert variants[1].size == sum(file.size for file in variants[1].files) + projector.size


def test_every_variant_is_found_by_the_tag_that_it_shows() -> None:
    names = [*FLAT, *SUBDIR, *UNSLOTH, *VENDORS, *BY_FOLDER, "model.gguf", "Q4_K_M.gguf"]
    variants = quants(hub_files(names))
    assert len({variant.tag.casefold() for variant in variants}) == len(variants)
    for variant in variants:
        assert names_of(choose(names, variant.tag)) == [file.filename for file in variant.files]


# Single names.


@pytest.mark.parametrize(
    ("name", "tag", "plain", "bits"),
    [
        ("m-Q4_K_M.gguf", "Q4_K_M", "Q4_K_M", 4),
        ("m-UD-Q4_K_XL.gguf", "UD-Q4_K_XL", "Q4_K_XL", 4),
        ("m.i1-IQ3_XXS.gguf", "IQ3_XXS", "IQ3_XXS", 3),
        ("ggml-model-f16.gguf", "f16", "f16", 16),
        ("m-MXFP4_MOE.gguf", "MXFP4_MOE", "MXFP4_MOE", 4),
        ("m-Q8_0-00002-of-00003.gguf", "Q8_0", "Q8_0", 8),
        ("UD-Q2_K_XL/m-00001-of-00002.gguf", "UD-Q2_K_XL", "", 2),
        ("Llama-3.2-3B-Instruct.gguf", "Instruct", "Instruct", 0),
        ("model.gguf", "", "", 0),
    ],
)
def test_a_files_name_tells_its_quant(name: str, tag: str, plain: str, bits: int) -> None:
    assert (tag_of(name), plain_tag_of(name), bits_of(name)) == (tag, plain, bits)


def test_a_shard_knows_the_names_of_its_set_in_the_files_own_spelling() -> None:
    split = split_of("q/m-00002-OF-00003.gguf")
    assert (split.index, split.count) == (2, 3)
    assert split.names() == tuple(f"q/m-0000{number}-OF-00003.gguf" for number in (1, 2, 3))


@pytest.mark.parametrize(
    "name", ["mmproj-F16.gguf", "m.imatrix.gguf", "m-mtp-Q8_0.gguf", "eagle3-m.gguf", "m.bin"]
)
def test_what_only_helps_a_model_is_no_model(name: str) -> None:
    assert not is_model(name)
