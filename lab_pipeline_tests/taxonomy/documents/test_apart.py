from __future__ import annotations

import pytest

from lab_pipeline.taxonomy.documents.apart import read_apart
from lab_pipeline.taxonomy.documents.blocks import DocumentError
from lab_pipeline.taxonomy.documents.pdf import read
from lab_pipeline_tests.taxonomy.documents.pdf_files import Words, pdf

FILE = pdf([Words(72, 700, "The harbour opens at six."), Words(72, 680, "Ilse keeps it.")])


def test_a_file_is_read_as_in_this_process():
    assert read_apart("pdf", FILE) == read(FILE)


def test_a_reader_s_error_comes_back():
    with pytest.raises(DocumentError) as here:
        read(b"no PDF")
    with pytest.raises(DocumentError) as apart:
        read_apart("pdf", b"no PDF")
    assert apart.value.message == here.value.message != ""


def test_a_file_beyond_the_limit_of_memory_is_a_problem_that_names_it():
    with pytest.raises(DocumentError, match="it takes more than 100 MB"):
        read_apart("pdf", FILE + bytes(90_000_000), megabytes=100)
