"""Names that come from outside: what may become a path, and what may not."""

from __future__ import annotations

import pytest

from llamactl.errors import BadMetadata, InvalidRequest
from llamactl.models.names import check_commit, check_filename, check_oid, check_repo_id
from llamactl.models.reference import LATEST, ModelRef

HOSTILE_FILENAMES = [
    "",
    ".",
    "..",
    "../x.gguf",
    "/etc/passwd",
    "a/../../b.gguf",
    "a//b.gguf",
    "a/./b.gguf",
    "a\\..\\b.gguf",
    "C:x.gguf",
    "C:\\x.gguf",
    "x\0.gguf",
    "x\n.gguf",
    "x\x7f.gguf",
    "x\x85.gguf",
    "x\u202e.gguf",
    "x\ud800.gguf",
    "dot.",
    "space ",
    "folder./x.gguf",
    "e\u0301.gguf",
    "x" * 201,
    "/".join(["d"] * 9),
    "/".join(["d" * 150] * 4),
    None,
    7,
    ["x.gguf"],
]


@pytest.mark.parametrize("name", HOSTILE_FILENAMES, ids=ascii)
def test_an_unsafe_file_name_is_refused_whole(name: object) -> None:
    with pytest.raises(BadMetadata):
        check_filename(name)


@pytest.mark.parametrize(
    "name",
    [
        "model.gguf",
        "UD-Q4_K_XL/model-00001-of-00003.gguf",
        "a b/100% #1?.gguf",
        "-rf",
        ".gitattributes",
        "модель.gguf",
        "é.gguf",
        "🦙.gguf",
        "x" * 200,
    ],
)
def test_an_odd_but_safe_file_name_is_kept_as_it_is(name: str) -> None:
    assert check_filename(name) == name


@pytest.mark.parametrize(
    "name", ["org/name", "o/n", "a_b/c", "TheBloke/Llama-2.1-7B_x-GGUF", "1/2", "a" * 96 + "/b"]
)
def test_a_repository_name_that_hub_and_llama_cpp_accept_is_accepted(name: str) -> None:
    assert check_repo_id(name) == name
    assert ModelRef.parse(name).repo_id == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "name",
        "a/b/c",
        "/b",
        "a/",
        "org/foo-.bar",
        "org/-x",
        "org/x-",
        "org/a--b",
        "org/a..b",
        "../../x",
        "org/x.git",
        "org/na me",
        "org/x\n",
        "org/é",
        "a" * 97 + "/b",
        None,
        3,
        b"org/name",
    ],
    ids=ascii,
)
def test_anything_else_is_no_repository_name(name: object) -> None:
    with pytest.raises(BadMetadata):
        check_repo_id(name)
    with pytest.raises(InvalidRequest) as caught:
        ModelRef.parse(name)
    assert caught.value.field == "repo"


@pytest.mark.parametrize("before", ["https://huggingface.co/", "hf.co/", "hf://"])
def test_an_address_in_place_of_a_name_is_told_what_to_leave_out(before: str) -> None:
    with pytest.raises(InvalidRequest, match=f"leave out {before}"):
        ModelRef.parse(f"{before}org/name:Q4_K_M")


@pytest.mark.parametrize("oid", ["a" * 64, "0" * 40])
def test_a_digest_has_forty_or_sixty_four_hexadecimal_digits(oid: str) -> None:
    assert check_oid(oid) == oid


@pytest.mark.parametrize(
    "value", ["", "a" * 39, "a" * 63, "A" * 40, "A" * 64, "../../etc", "g" * 40, "a" * 40 + "\n", 0]
)
def test_anything_else_is_neither_digest_nor_commit(value: object) -> None:
    with pytest.raises(BadMetadata):
        check_oid(value)
    with pytest.raises(BadMetadata):
        check_commit(value)


def test_a_sha256_is_no_commit() -> None:
    assert check_commit("b" * 40) == "b" * 40
    with pytest.raises(BadMetadata):
        check_commit("b" * 64)


def test_a_refused_name_is_shown_short_and_escaped() -> None:
    with pytest.raises(BadMetadata) as caught:
        check_filename("\x1b[31m" + "x" * 10_000)
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("text", ["org/name", "org/name:latest", "org/name:LATEST"])
def test_no_tag_and_latest_mean_the_same(text: str) -> None:
    assert ModelRef.parse(text) == ModelRef("org/name", LATEST)


@pytest.mark.parametrize(
    "tag",
    ["Q4_K_M", "q4_k_m", "UD-Q4_K_XL", "I-Compact", "x-Q4_K_M.gguf", "Q4/m.gguf", "é"],
)
def test_a_tag_may_be_a_quant_or_the_path_of_a_file(tag: str) -> None:
    assert ModelRef.parse(f"org/name:{tag}").tag == tag


@pytest.mark.parametrize(
    "tag", ["", "main:evil", "--help", "../x", "/x", "a=b", "a b", "a\nb", "a*", "~", "x" * 201]
)
def test_a_tag_that_could_not_be_stored_is_refused(tag: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ModelRef.parse(f"org/name:{tag}")
    assert caught.value.field == "repo"


@pytest.mark.parametrize("value", [None, 7, ["org/name"], {"repo": "x"}, True, "a" * 10_240])
def test_what_is_no_short_text_is_no_reference(value: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ModelRef.parse(value)
    assert caught.value.field == "repo"
    assert len(caught.value.details) < 400


def test_references_compare_by_a_tag_without_case() -> None:
    assert ModelRef.parse("o/n:q4_k_m").key == ModelRef.parse("o/n:Q4_K_M").key
    assert ModelRef.parse("o/n:Q4_K_M").key != ModelRef.parse("o/n:Q4_K_S").key
    assert ModelRef.parse("O/n").key != ModelRef.parse("o/n").key


def test_a_reference_is_written_as_it_is_read() -> None:
    ref = ModelRef.parse("org/name:Q4_K_M")
    assert str(ref) == "org/name:Q4_K_M"
    assert ModelRef.parse(str(ref)) == ref
