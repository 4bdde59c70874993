from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from codegen import overlay
from codegen.errors import OverlayError

DOCUMENT: dict[str, Any] = {
    "info": {"title": "t"},
    "tags": [{"name": "a"}, {"name": "b"}, {"name": "c"}],
    "required": ["x", "y", "z"],
}


def actions(tmp_path: Path, text: str) -> list[overlay.Action]:
    path = tmp_path / "overlay.yaml"
    path.write_text("overlay: 1.0.0\ninfo: {title: t, version: '1'}\nactions:\n" + text)
    return overlay.load(path)


def test_update_merges_objects_and_leaves_the_input_alone(tmp_path: Path) -> None:
    result = overlay.apply(DOCUMENT, actions(tmp_path, "- target: $.info\n  update: {version: '2'}\n"))
    assert result["info"] == {"title": "t", "version": "2"}
    assert DOCUMENT["info"] == {"title": "t"}


def test_update_of_an_array_appends(tmp_path: Path) -> None:
    result = overlay.apply(DOCUMENT, actions(tmp_path, "- target: $.tags\n  update: {name: d}\n"))
    assert [tag["name"] for tag in result["tags"]] == ["a", "b", "c", "d"]


def test_remove_takes_out_every_match(tmp_path: Path) -> None:
    result = overlay.apply(DOCUMENT, actions(tmp_path, "- target: $.tags[?@.name != 'b']\n  remove: true\n"))
    assert result["tags"] == [{"name": "b"}]


def test_remove_works_on_array_elements_by_value(tmp_path: Path) -> None:
    result = overlay.apply(DOCUMENT, actions(tmp_path, "- target: $.required[?@=='y']\n  remove: true\n"))
    assert result["required"] == ["x", "z"]


def test_actions_are_applied_in_order(tmp_path: Path) -> None:
    text = "- target: $.info.title\n  remove: true\n- target: $.info\n  update: {title: new}\n"
    assert overlay.apply(DOCUMENT, actions(tmp_path, text))["info"] == {"title": "new"}


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("- target: $.paths['/gone']\n  remove: true\n", "matches nothing"),
        ("- target: $.info\n  update: {title: t}\n", "changes nothing"),
        ("- target: $\n  update: {required: [w]}\n", "is an array already"),
        ("- target: $.info.title\n  update: {a: 1}\n", "only objects and arrays"),
        ("- target: $.[\n  remove: true\n", "not a JSONPath"),
        ("- target: $\n  remove: true\n", "the root cannot be removed"),
    ],
)
def test_an_action_that_does_not_fit_stops_and_names_itself(tmp_path: Path, action: str, reason: str) -> None:
    with pytest.raises(OverlayError, match=r"overlay\.yaml, action 1: target \$") as caught:
        overlay.apply(DOCUMENT, actions(tmp_path, action))
    assert reason in str(caught.value)


def test_all_misfits_are_listed_at_once(tmp_path: Path) -> None:
    text = "- target: $.one\n  remove: true\n- target: $.two\n  remove: true\n"
    with pytest.raises(OverlayError) as caught:
        overlay.apply(DOCUMENT, actions(tmp_path, text))
    assert "action 1: target $.one" in str(caught.value)
    assert "action 2: target $.two" in str(caught.value)


@pytest.mark.parametrize(
    "action", ["- target: $\n", "- target: $\n  update: {}\n  remove: true\n", "- tarjet: $\n  remove: true\n"]
)
def test_an_action_of_the_wrong_shape_is_refused(tmp_path: Path, action: str) -> None:
    with pytest.raises(OverlayError, match="action 1"):
        actions(tmp_path, action)
