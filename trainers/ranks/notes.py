"""What the first rank tells the user: into its log, and into a file that the launcher shows."""

from collections.abc import Iterable

from conf.run_dir import RunDir


def tell(run_dir: RunDir, lines: Iterable[str]) -> None:
    for line in lines:
        text = line.encode("utf-8", "backslashreplace").decode()  # a file beside the data may have a name that is not UTF-8
        print(text, flush=True)
        with run_dir.notes.open("a", encoding="utf-8") as file:
            file.write(" ".join(text.split()) + "\n")
