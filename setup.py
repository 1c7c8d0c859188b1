"Packaging: name, version, address and requirements stand in settings.ini."
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser()
config.read(here / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]
readme = here / "README.md"


def absolute(text: str) -> str:
    "Links to files lead nowhere on an index: they become links to `home`, or only their words."
    def replace(found: re.Match) -> str:
        image, words, path = found.groups()
        if not settings["home"]:
            return "" if image else words
        kind = "raw" if image else "blob"
        return f"{image}[{words}]({settings['home']}/{kind}/{settings['branch']}/{path})"

    return re.sub(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)]+)\)", replace, text)


setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=absolute(readme.read_text(encoding="utf-8")) if readme.exists() else "",
    long_description_content_type="text/markdown",
    author=settings["author"],
    author_email=settings["author_email"] or None,
    url=settings["home"] or None,
    keywords=settings["keywords"],
    license="MIT",
    classifiers=[
        "Intended Audience :: Education",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Programming Language :: Python :: 3",
    ],
    packages=find_packages(include=["minigpt_course*"]),
    package_data={"minigpt_course": ["weights/*.json", "weights/*/*", "page/*"]},
    python_requires=f">={settings['min_python']}",
    install_requires=settings["requirements"].split(),
    extras_require={
        "share": settings["share_requirements"].split(),
        "dev": f"{settings['dev_requirements']} {settings['share_requirements']}".split(),
    },
    entry_points={"console_scripts": settings["console_scripts"].split()},
)
