"""What the model sees of a block: itself, its neighbours, its containers, and its place on the page, as numbers.

Everything is arithmetic on arrays over a page's blocks. Sums over a container are differences of cumulative sums, as a
container's blocks follow each other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from herdlm.curate.extract.blocks import Blocks
from herdlm.curate.extract.cues import BIT, CUES, WORDS, word_cues

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

TAG_CODE = {tag: code for code, tag in enumerate(
    ("p", "div", "li", "td", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "blockquote", "dt", "dd", "figcaption", "th", "section",
     "article", "center", "caption", "address", "header", "footer", "summary"), 1)}  # fmt: skip
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
LONGEST_WITH_CUES = 300  # characters; set words mean nothing in a longer block
SIGNS = {sign: code for code, sign in enumerate(".!?:,;)]”\"'…([“-–—•*|>©#@。！？：」", 1)}
ENDS = frozenset(".!?。！？…।؟۔:”\"’»)")
LEVELS = 3
OWN_CUES = ("article", "body", "comment", "related", "list", "social", "navigation", "footer", "side", "advert", "subscribe",
            "byline", "date", "media", "tags", "title", "summary", "quote", "code", "section", "hidden", "header",
            "paragraph", "answer")  # fmt: skip
UNDER_CUES = (*OWN_CUES, "<article>", "<main>", "<section>", "<aside>", "<nav>", "<header>", "<footer>", "<form>", "<figure>",
              "<table>", "<ul>", "<ol>", "<li>", "<blockquote>", "<pre>", "<dl>", "<figcaption>", "articleBody", "main")  # fmt: skip
WORD_CUES = tuple(WORDS)


def _bits(masks: Ints, names: tuple[str, ...]) -> Floats:
    bits = np.array([BIT[name] for name in names], np.int64)
    return ((masks[:, None] & bits) != 0).astype(np.float32)


def features(page: Blocks, title: str, description: str) -> Floats:
    """``[blocks, features]`` of a page with at least one block; the columns are :func:`names`."""
    text, count = page.text, len(page.text)
    at = np.array(page.container, np.int64)
    words = np.array(page.words, np.float32)
    size = np.array([len(t) for t in text], np.float32)
    link_share = np.minimum(np.array(page.link, np.float32) / size, 1)
    bold_share = np.minimum(np.array(page.bold, np.float32) / size, 1)
    tags = np.array([TAG_CODE.get(page.name[c], 0) for c in page.container], np.float32)
    ends = np.array([t[-1] in ENDS for t in text], np.float32)
    stops = np.array([t.count(". ") + t.count(", ") + t.count("。") + t.count("、") + t.count("，") for t in text], np.float32)
    upper = np.array([t.isupper() for t in text], np.float32)
    lower_start = np.array([t[0].islower() for t in text], np.float32)
    digits = np.array([sum(map(t.count, "0123456789")) if len(t) < 100 else 0 for t in text], np.float32) / size
    lines = np.array([t.count("\n") for t in text], np.float32)
    pre = np.array(page.preformatted, np.float32)
    phrases = np.array([word_cues(t) if len(t) <= LONGEST_WITH_CUES else 0 for t in text], np.int64)
    opening = np.array([word_cues(t[:24]) if len(t) <= LONGEST_WITH_CUES else 0 for t in text], np.int64)
    capitals = np.array([sum(map(str.isupper, t)) if len(t) <= LONGEST_WITH_CUES else 0 for t in text], np.float32) / size
    last_sign = np.array([SIGNS.get(t[-1], 0) for t in text], np.float32)
    first_sign = np.array([SIGNS.get(t[0], 0) for t in text], np.float32)
    bars = np.array([("|" in t) + 2 * ("@" in t) + 4 * ("/" in t) if len(t) <= LONGEST_WITH_CUES else 0 for t in text], np.float32)
    seen: dict[str, int] = {}
    for t in text:
        seen[t] = seen.get(t, 0) + 1
    repeats = np.array([seen[t] for t in text], np.float32)
    title_words = set(title.lower().split())
    in_title = np.zeros(count, np.float32)
    if title_words:
        for number, t in enumerate(text):
            if len(t) < 250:
                own = set(t.lower().split())
                in_title[number] = len(own & title_words) / max(len(own), 3)

    described = np.zeros(count, np.float32)
    description_words = set(description.lower().split())
    if len(description_words) >= 8:
        for number, t in enumerate(text):
            if page.words[number] >= 8:
                described[number] = len(description_words.intersection(t[:500].lower().split())) / len(description_words)
    first_described = int(described.argmax()) if described.max(initial=0) > 0.5 else -1

    heading = (tags >= TAG_CODE["h1"]) & (tags <= TAG_CODE["h6"])
    plain = words * (1 - link_share)
    inherited_masks = np.array(page.inherited, np.int64)
    chrome = BIT["<nav>"] | BIT["<footer>"] | BIT["<aside>"] | BIT["comment"] | BIT["related"] | BIT["side"] | BIT["hidden"]
    under = inherited_masks[at]
    good = np.where((words >= 12) & (link_share < 0.35) & ((ends > 0) | (stops >= 2) | (pre > 0)), plain, 0)
    good *= np.where((under & chrome) != 0, 0.3, 1.0).astype(np.float32)

    # containers
    parent = np.array(page.parent, np.int64)
    first, last = np.array(page.first, np.int64), np.array(page.last, np.int64)
    depth = np.array(page.depth, np.float32)
    path = np.array(page.path, np.int64)

    def summed(values: Floats) -> Floats:
        cumulative = np.concatenate(([0.0], np.cumsum(values, dtype=np.float64)))
        return (cumulative[last] - cumulative[first]).astype(np.float32)

    box_words, box_plain, box_good = summed(words), summed(plain), summed(good)
    box_blocks = (last - first).astype(np.float32)
    box_heads = summed(heading.astype(np.float32))
    total_words, total_good = max(box_words[0], 1), max(box_good[0], 1)
    children = np.bincount(parent, minlength=len(parent)).astype(np.float32)

    # the main containers: the innermost ones that hold most of the page's good text
    columns: list[Floats] = []
    order = np.arange(len(parent))
    mains = []
    for share in (0.4, 0.65, 0.9):
        main = int(order[box_good >= share * total_good][-1]) if total_good > 1 else 0
        # preorder: the last with so much that is also an ancestor chain member
        mains.append(main)
        inside = ((np.arange(count) >= first[main]) & (np.arange(count) < last[main])).astype(np.float32)
        columns += [inside, depth[at] - depth[main],
                    (np.arange(count) - first[main]) / max(last[main] - first[main], 1)]  # fmt: skip
    for main in mains[:2]:
        # the branch of the main container that a block stands in
        branch_of = np.where(parent == main, order, -1)
        branch_of[0] = -1
        starts = order[branch_of >= 0]
        if len(starts):
            which = np.searchsorted(first[starts], np.arange(count), "right") - 1
            which = np.clip(which, 0, len(starts) - 1)
            branch = starts[which]
            inside = (np.arange(count) >= first[branch]) & (np.arange(count) < last[branch])
            branch = np.where(inside, branch, main)
        else:
            branch = np.full(count, main)
        columns += [box_good[branch] / total_good, box_plain[branch] / np.maximum(box_words[branch], 1), np.log1p(box_words[branch]),
                    box_blocks[branch]]  # fmt: skip

    # paths: how much good text stands at this very path of tags and names, and in this very container
    on_path = np.bincount(path[at], weights=good, minlength=int(path.max()) + 1).astype(np.float32)
    blocks_on_path = np.bincount(path[at], minlength=int(path.max()) + 1).astype(np.float32)
    in_box = np.bincount(parent[at], weights=good, minlength=len(parent)).astype(np.float32)
    columns += [on_path[path[at]] / total_good, np.log1p(blocks_on_path[path[at]]), in_box[parent[at]] / total_good]
    columns += [on_path[path[at]] / max(on_path.max(), 1), in_box[parent[at]] / max(in_box.max(), 1)]

    is_article = np.array([tag == "article" for tag in page.name])
    inner = np.zeros(count, np.int64)
    level = np.zeros(count, np.float32)
    for number in order[is_article].tolist():  # preorder: an inner article writes over the one around it
        inner[first[number] : last[number]] = number
        level[first[number] : last[number]] += 1
    ordinal = np.cumsum(is_article)[inner].astype(np.float32)
    biggest = order[is_article][int(box_good[is_article].argmax())] if is_article.any() else 0
    columns += [level, np.minimum(ordinal, 20), inner == biggest, box_good[inner] / total_good]

    box = at
    for _ in range(LEVELS):
        columns += [np.log1p(box_words[box]), box_plain[box] / np.maximum(box_words[box], 1), box_good[box] / total_good,
                    np.log1p(box_blocks[box]), np.log1p(children[box]), box_heads[box] / np.maximum(box_blocks[box], 1)]  # fmt: skip
        box = parent[box]

    log_words = np.log1p(words)
    own = [log_words, link_share, bold_share, tags, ends, stops, upper, lower_start, digits, lines, pre, repeats, in_title,
           size / np.maximum(words, 1), depth[at], capitals, last_sign, first_sign, bars]  # fmt: skip
    for distance in (-2, -1, 1, 2):
        for values in (log_words, link_share, ends, tags, good > 0):
            columns.append(_shifted(values.astype(np.float32), distance))

    # windows
    for values in (plain, words, good):
        cumulative = np.concatenate(([0.0], np.cumsum(values, dtype=np.float64)))
        here = np.arange(count)
        before = cumulative[here] - cumulative[np.maximum(here - 6, 0)]
        after = cumulative[np.minimum(here + 7, count)] - cumulative[here + 1]
        columns += [np.log1p(before).astype(np.float32), np.log1p(after).astype(np.float32)]
    cumulative_good = np.cumsum(good)
    columns += [np.arange(count) / count, np.cumsum(words) / total_words, cumulative_good / total_good,
                np.full(count, np.log1p(total_good)), np.full(count, total_good / total_words), np.full(count, np.log1p(count))]  # fmt: skip
    # headings and titles before
    last_h1 = np.maximum.accumulate(np.where((tags == TAG_CODE["h1"]) | (in_title > 0.6), np.arange(count), -1))
    columns += [np.where(last_h1 < 0, -1, np.log1p(np.arange(count) - last_h1))]
    last_heading = np.maximum.accumulate(np.where(heading, np.arange(count), -1))
    heading_cues = np.where(last_heading >= 0, phrases[last_heading], 0)
    columns += [np.where(last_heading < 0, -1, np.log1p(np.arange(count) - last_heading)),
                ((heading_cues & (1 << 2 | 1 << 3)) != 0)]  # fmt: skip
    columns += [described, np.where(first_described < 0, -100, np.clip(np.arange(count) - first_described, -50, 50))]
    good_at = np.where(good > 0, np.arange(count), -1)
    since_good = np.arange(count) - np.maximum.accumulate(good_at)
    until_good = np.minimum.accumulate(np.where(good > 0, np.arange(count), 2 * count)[::-1])[::-1] - np.arange(count)
    columns += [np.log1p(np.minimum(since_good, 100)), np.log1p(np.minimum(until_good, 100))]

    matrix = np.column_stack([np.asarray(column, np.float32) for column in own + columns])
    word_bits = _word_bits(phrases)
    own_masks = np.array(page.own, np.int64)
    near = own_masks[at] | own_masks[parent[at]]
    return np.hstack([matrix, _bits(near, OWN_CUES), _bits(under, UNDER_CUES), word_bits, _bits_shifted(word_bits), _word_bits(opening)])


def _word_bits(masks: Ints) -> Floats:
    return ((masks[:, None] >> np.arange(len(WORD_CUES))) & 1).astype(np.float32)


def _shifted(values: Floats, distance: int) -> Floats:
    result = np.full(len(values), -1, np.float32)
    if distance > 0:
        result[:-distance] = values[distance:]
    else:
        result[-distance:] = values[:distance]
    return result


def _bits_shifted(bits: Floats) -> Floats:
    result = np.zeros_like(bits)
    result[1:] = bits[:-1]
    return result
