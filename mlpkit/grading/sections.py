"""The contract's table: 17 sections, 40 points."""

from __future__ import annotations

from . import layer_sections, network_sections, optimizer_sections, training_sections
from .interface import Section

SECTIONS: tuple[Section, ...] = (
    layer_sections.fc_forward(),
    layer_sections.fc_backward(),
    layer_sections.leaky_relu_forward(),
    layer_sections.leaky_relu_backward(),
    layer_sections.dropout_forward(),
    layer_sections.dropout_backward(),
    network_sections.fc_and_leaky_relu(),
    layer_sections.loss(),
    network_sections.small_network(),
    network_sections.dropout_network(),
    training_sections.to_75_percent(),
    optimizer_sections.sgdm(),
    training_sections.sgd_against_sgdm(),
    optimizer_sections.rmsprop(),
    optimizer_sections.adam(),
    training_sections.four_optimizers(),
    optimizer_sections.activations(),
)


def find_sections(words: str | None) -> tuple[Section, ...]:
    """The sections whose names have all the words in them, all for None; ValueError for none."""
    found = tuple(
        section
        for section in SECTIONS
        if all(word in section.name.lower() for word in (words or "").lower().split())
    )
    if not found:
        known = ", ".join(section.name for section in SECTIONS)
        raise ValueError(f"no section's name has {words!r} in it; the sections are {known}")
    return found
