"""Shields."""

from __future__ import annotations

from onnxstack_conformance.marks import rule
from onnxstack_conformance.rules.test_inference import user
from onnxstack_conformance.stack import Stack, leave_out


def shield(stack: Stack) -> str:
    """The shield to ask; the rule is left out where there is none."""
    names = [str(found["identifier"]) for found in stack.listed("list_shields", fresh=False)]
    fit = [name for name in names if stack.options.shield in (None, name) and not name.startswith("conformance::")]
    return fit[0] if fit else leave_out("the server lists no shield (--shield ID)")


def objecting(stack: Stack) -> str:
    """The shield, where it objects to the text of the options."""
    name = shield(stack)
    body = {"shield_id": name, "messages": [user(stack.options.attack)], "params": {}}
    if not stack.call("run_shield", body=body).json().get("violation"):
        leave_out(f"the shield {name!r} does not object to {stack.options.attack!r} (--attack TEXT)")
    return name


@rule("run_shield", source="contract: RunShieldResponse; a harmless text has no violation")
def test_a_harmless_text_is_no_violation(stack: Stack) -> None:
    """What nobody objects to has no violation of level error."""
    body = {"shield_id": shield(stack), "messages": [user("The river rises in spring.")], "params": {}}
    answer = stack.call("run_shield", body=body)
    violation = answer.json().get("violation")
    answer.must(not violation or violation["violation_level"] != "error", f"a text about a river is {violation}")


@rule("run_shield", source="contract: SafetyViolation")
def test_a_violation_says_how_grave_it_is(stack: Stack) -> None:
    """A text that the shield objects to has a violation with a level, the same when it is asked again."""
    body = {"shield_id": shield(stack), "messages": [user(stack.options.attack)], "params": {}}
    first = stack.call("run_shield", body=body)
    if stack.options.shield is None and not first.json().get("violation"):
        leave_out(f"the shield does not object to {stack.options.attack!r} (--shield ID --attack TEXT)")
    first.must(bool(first.json().get("violation")), f"no violation in {stack.options.attack!r}")
    again = stack.call("run_shield", body=body)
    again.must(bool(again.json().get("violation")), "the same text is a violation once and none the second time")


@rule("run_shield", source="our interpretation: it is the caller's mistake")
def test_an_unknown_shield_is_refused(stack: Stack) -> None:
    """A shield that is not registered gets a 4xx."""
    stack.call("list_shields")
    body = {"shield_id": f"conformance-{stack.run}-nobody", "messages": [user("a")], "params": {}}
    stack.refused("run_shield", "an unknown shield", body=body)
