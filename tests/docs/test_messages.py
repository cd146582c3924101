"""The one place that holds the wording of messages: other tests assert what a message names."""

from tests.docs import messages


def test_the_page_of_messages_is_what_the_command_line_prints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert messages.page() == messages.PAGE.read_text(encoding="utf-8"), "write it again: python -m tests.docs.messages"
