"""Invented people for generated texts."""

from __future__ import annotations

GIVEN_NAMES = (
    "Alva", "Berit", "Casimir", "Dorothea", "Elis", "Ferenc", "Gunda", "Henrik", "Ilse", "Jorun",
    "Kasper", "Lovisa", "Mattis", "Nadja", "Orla", "Petra", "Rurik", "Signe", "Tilda", "Ulrik",
)  # fmt: skip

SURNAMES = (
    "Abbott", "Brandt", "Castell", "Devlin", "Ekman", "Farrow", "Grieg", "Hansen", "Ibsen",
    "Jarvis", "Keller", "Lambert", "Mercer", "Norling", "Osborne", "Palmer",
)  # fmt: skip
