"""Which mesh a node belongs to."""

from __future__ import annotations

from relaymesh.core.mesh.label import mesh_label


def label(place: str = "1:2", *, name: str = "", signed: bool = False, insecure: bool = False) -> str:
    return mesh_label("default", label=name, signed=signed, insecure=insecure, place=place)


def test_without_a_secret_each_root_is_a_mesh_of_its_own() -> None:
    assert label("1:2") == label("1:2")
    assert label("1:2") != label("1:3")


def test_with_a_secret_the_place_does_not_matter_and_the_namespace_does() -> None:
    assert label("1:2", signed=True) == label("1:3", signed=True)
    assert mesh_label("a", label="", signed=True, insecure=False, place="") != label(signed=True)


def test_who_gossips_openly_on_purpose_means_all_who_hear_it() -> None:
    assert label("1:2", insecure=True) == label("1:3", insecure=True) == label("1:2", signed=True)


def test_a_name_that_was_set_counts_before_all_else() -> None:
    assert label("1:2", name="lab") == label("1:3", name="lab", signed=True) != label(signed=True)


def test_a_name_cannot_pass_for_a_namespace_or_a_place() -> None:
    assert len({label("x", name="default"), label("x", signed=True), label("x")}) == 3
