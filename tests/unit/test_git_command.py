"""Programs within limits: what goes in and comes out byte for byte, and what ends them."""

import sys
from pathlib import Path

import pytest
import uvloop

from hive_core.containers.command import Captured, CommandFailed, Limits, TookTooLong, capture

LIMITS = Limits(memory_bytes=512 * 1024 * 1024, cpu_seconds=10, file_bytes=1024 * 1024)


async def python(
    code: str, *, given: bytes | int = b"", limits: Limits = LIMITS, most: int = 10_000
) -> Captured:
    return await capture(
        [sys.executable, "-I", "-S", "-c", code],
        timeout_seconds=30, output_max_bytes=most, limits=limits, given=given,
    )  # fmt: skip


async def test_bytes_go_through_unchanged_and_errors_are_apart() -> None:
    captured = await python(
        "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1]); "
        "sys.stderr.write('oh'); sys.exit(3)",
        given=bytes(range(256)),
    )
    assert captured.output == bytes(reversed(range(256)))
    assert (captured.exit_code, captured.errors, captured.cut) == (3, "oh", False)


async def test_an_open_file_is_read_from_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    with open(tmp_path / "file", "rb", buffering=0) as file:
        file.seek(4)
        assert (await python("print(input())", given=file.fileno())).output == b"456789\n"


async def test_a_program_that_reads_nothing_of_what_it_is_given_does_no_harm() -> None:
    assert (await python("print(1)", given=bytes(5_000_000))).output == b"1\n"


async def test_a_program_that_prints_too_much_is_ended_and_its_output_cut() -> None:
    captured = await python("while True: print('x' * 1000)", most=5000)
    assert captured.cut
    assert len(captured.output) == 5000
    assert "more than can be taken" in captured.failure().message


async def test_memory_processor_time_and_files_are_limited(tmp_path: Path) -> None:
    assert b"MemoryError" in (await python("bytes(1 << 30)")).errors.encode()
    busy = Limits(memory_bytes=LIMITS.memory_bytes, cpu_seconds=1, file_bytes=1024)
    assert (await python("while True: pass", limits=busy)).exit_code < 0
    assert (
        await python(f"open({str(tmp_path / 'f')!r}, 'wb').write(bytes(1 << 20))", limits=busy)
    ).exit_code != 0
    assert (tmp_path / "f").stat().st_size <= 1024


async def test_files_that_it_makes_can_be_read_by_others(tmp_path: Path) -> None:
    await python(f"open({str(tmp_path / 'f')!r}, 'w')")
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o644


async def test_nothing_of_ours_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/somewhere")
    monkeypatch.setenv("HOME", "/root")
    captured = await python("import os; print(sorted(os.environ))")
    assert b"GIT_DIR" not in captured.output
    assert b"HOME" not in captured.output


async def test_arguments_are_never_a_shell_s() -> None:
    words = ["$(touch /tmp/x)", "`id`", "; id", "'", '"', "-c", "a b", ""]
    captured = await capture(
        [sys.executable, "-I", "-S", "-c", "import sys; print(sys.argv[1:])", *words],
        timeout_seconds=30, output_max_bytes=1000, limits=LIMITS,
    )  # fmt: skip
    assert captured.output.decode().strip() == str(words)


async def test_what_takes_too_long_or_is_not_there_is_an_error() -> None:
    with pytest.raises(TookTooLong, match=r"took longer than 0\.2 seconds"):
        await capture(["sleep", "60"], timeout_seconds=0.2, output_max_bytes=10, limits=LIMITS)
    with pytest.raises(CommandFailed, match="no-such-program: cannot be run"):
        await capture(["no-such-program"], timeout_seconds=5, output_max_bytes=10, limits=LIMITS)


def test_it_works_on_the_loop_that_the_daemon_uses() -> None:
    """Programs that end before they are fed were an error there."""

    async def often() -> list[bytes]:
        quick = [
            await capture(["true"], timeout_seconds=30, output_max_bytes=10, limits=LIMITS, given=b"x" * size)
            for size in (0, 1, 100_000)
            for _ in range(10)
        ]
        return [captured.output for captured in quick]

    assert uvloop.run(often()) == [b""] * 30
