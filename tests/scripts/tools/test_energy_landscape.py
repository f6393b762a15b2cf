"""`python -m drivecast.scripts.tools.energy_landscape`: its command line."""

from __future__ import annotations

import pytest

from drivecast.scripts.tools.energy_landscape import main


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), ([], 2), (["--nope", "a.png"], 2)])
def test_it_writes_no_file_named_like_an_option(arguments, status, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == status
    assert list(tmp_path.iterdir()) == []


def test_it_draws_to_the_file_it_is_given(tmp_path):
    main([str(tmp_path / "energy.png")])
    assert (tmp_path / "energy.png").read_bytes().startswith(b"\x89PNG")
