"""Curate a crawl: raw pages in, clean and unique documents out, and a reason for every page that is dropped.

python examples/curate.py [SOURCE] [OUT]
"""

import sys
from pathlib import Path

from herdlm.curate import CurateConfig, curate
from herdlm.tokens.documents import read_documents


def main(source: str = "sample/starter.warc.gz", out: str = "corpus") -> None:
    folder = Path(out)
    folder.mkdir(parents=True)
    funnel = curate([source], folder, CurateConfig(language={"keep": ["en"]}, workers=2))
    for step in funnel["steps"]:
        for reason, count in step["dropped"].items():
            print(f"dropped by {step['step']}: {reason}, {count['documents']} documents")
    documents = list(read_documents(folder / "documents"))
    print(f"kept {len(documents)} of {funnel['input']['documents']} pages in {folder}")
    print(f"the first one begins: {documents[0].text[:200]!r}")


if __name__ == "__main__":  # curation starts processes, which load this file again
    main(*sys.argv[1:])
