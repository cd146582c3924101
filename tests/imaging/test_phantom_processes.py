"""Phantoms drawn in processes: the same bytes and errors, and no process outlives the thread that asked."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from heartseg_jax.imaging.phantom import processes
from heartseg_jax.imaging.phantom.generator import PhantomSpec, digest, generate

SMALL = PhantomSpec((4, 16, 16), (30.0, 20.0, 20.0))


def test_a_thread_s_process_draws_the_same_bytes_and_ends_with_it():
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(processes.generate_in_process, 3, 1, SMALL).result()
        process = pool.submit(lambda: processes._own.process._process).result()
        assert process.poll() is None
    assert digest(made) == digest(generate(3, 1, SMALL))
    assert process.wait(30) == 0


def test_an_error_in_the_process_is_raised_here():
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(processes.generate_in_process, 3, 1, PhantomSpec((0, 16, 16)))
        with pytest.raises(ValueError, match="three positive sizes"):
            asked.result()


def test_without_its_process_a_thread_draws_itself():
    def twice():
        processes.generate_in_process(3, 1, SMALL)
        child = processes._own.process._process
        child.kill()
        child.wait()
        return processes.generate_in_process(3, 2, SMALL)

    with ThreadPoolExecutor(1) as pool:
        assert digest(pool.submit(twice).result()) == digest(generate(3, 2, SMALL))


def test_the_main_thread_starts_no_process():
    processes.generate_in_process(3, 1, SMALL)
    assert not hasattr(processes._own, "process")
