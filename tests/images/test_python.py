"""The Python runner."""

from images.box import Boxes


def test_a_script_runs_with_the_libraries_that_the_readme_names(python: Boxes) -> None:
    """The named libraries are there, and so is the whole standard library."""
    finished = python.run(
        "import ctypes, decimal, lzma, requests, sqlite3, ssl, sys, yaml\n"
        "print(sys.version_info[:2], yaml.safe_load('a: [1, 2]'), requests.codes.ok)\n"
    )

    assert finished.exit_code == 0
    assert finished.text == "(3, 13) {'a': [1, 2]} 200\n"


def test_a_child_image_has_its_pinned_package_compiled_and_no_installer(python_extra: Boxes) -> None:
    """Of that version and no other; pip was there for the build alone."""
    finished = python_extra.run(
        "import importlib.metadata, importlib.util, os, tabulate\n"
        "print(importlib.metadata.version('tabulate'), importlib.util.find_spec('pip'))\n"
        "print(os.path.exists(importlib.util.cache_from_source(tabulate.__file__)))\n"
    )

    assert (finished.exit_code, finished.text.split()) == (0, ["0.9.0", "None", "True"])


def test_output_appears_as_it_is_printed_and_in_order(python: Boxes) -> None:
    """No buffer holds one stream back behind the other, even when the script dies hard."""
    script = (
        "import os, sys\nfor n in range(100):\n  print('out', n)\n  print('err', n, file=sys.stderr)\nos._exit(4)\n"
    )
    finished = python.run(script)

    assert finished.exit_code == 4
    assert finished.text == "".join(f"out {n}\nerr {n}\n" for n in range(100))


def test_an_uncaught_exception_is_exit_code_1_with_its_traceback(python: Boxes) -> None:
    """The traceback names the line of the playbook."""
    finished = python.run("\n\nraise RuntimeError('no such host')\n")

    assert finished.exit_code == 1
    assert 'File "/playbook/playbook.py", line 3' in finished.text
    assert finished.text.endswith("RuntimeError: no such host\n")


def test_sys_exit_is_passed_on(python: Boxes) -> None:
    """A script's own exit code is the container's."""
    assert python.run("raise SystemExit(42)").exit_code == 42


def test_text_beyond_ascii_is_printed_as_utf_8(python: Boxes) -> None:
    """The locale of the image does not stand in the way."""
    assert python.run("print('ü € 你好')").text == "ü € 你好\n"


def test_no_byte_code_is_written_beside_what_a_script_imports(python: Boxes) -> None:
    """The small writable place is for the playbook's own files."""
    finished = python.run(
        "import pathlib, sys\n"
        "pathlib.Path('/work/helper.py').write_text('value = 7')\n"
        "sys.path.insert(0, '/work')\n"
        "import helper\n"
        "print(helper.value, sorted(path.name for path in pathlib.Path('/work').iterdir()))\n"
    )

    assert finished.text == "7 ['helper.py']\n"


def test_what_python_brings_along_is_already_compiled(python: Boxes) -> None:
    """On a read-only file system nothing would ever be compiled for good."""
    finished = python.run(
        "import importlib.util, json, os, requests, yaml\n"
        "for module in (json, os, requests, yaml):\n"
        "    print(os.path.exists(importlib.util.cache_from_source(module.__file__)))\n"
    )

    assert finished.text.split() == ["True"] * 4
