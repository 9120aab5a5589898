"""The packages of this project: those of `refocus_select/`, and the top-level folders that are installed inside it."""

from setuptools import find_packages, setup

INSIDE = ("adapters", "weights")  # installed as refocus_select.adapters and refocus_select.weights, see pyproject.toml

setup(
    packages=[
        *find_packages(include=["refocus_select", "refocus_select.*"]),
        *(f"refocus_select.{name}" for name in find_packages(include=[p for n in INSIDE for p in (n, f"{n}.*")])),
    ]
)
